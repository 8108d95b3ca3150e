"""The platform of this host, in the words of images (GOARCH)."""

import platform

from bennu.errors import InvalidParameter
from bennu.go.arch import architecture
from bennu.go.platform import ImagePlatform, parse_platform


def host_architecture() -> str:
    """Answer this host's architecture: `amd64`, `arm64`, …"""
    return architecture(platform.machine())


def read_platform(text: str) -> ImagePlatform | None:
    """Read a platform that a client asks for; None: none. Raises: InvalidParameter."""
    try:
        return parse_platform(text, host_architecture()) if text else None
    except ValueError as error:
        raise InvalidParameter(str(error)) from None


def wanted_platform(text: str) -> ImagePlatform | None:
    """Read the platform of an image that is to come to be here. Raises: InvalidParameter; also for another system."""
    found = read_platform(text)
    if found is not None and found.os != "linux":
        raise InvalidParameter("operating system is not supported")
    return found
