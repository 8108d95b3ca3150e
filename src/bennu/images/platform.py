"""The platform of this host, in the words of images (GOARCH)."""

import platform

from bennu.errors import InvalidParameter
from bennu.go.arch import architecture
from bennu.go.platform import ImagePlatform, parse_platform


def host_architecture() -> str:
    """Answer this host's architecture: `amd64`, `arm64`, …"""
    return architecture(platform.machine())


def wanted_platform(text: str) -> ImagePlatform | None:
    """Read a platform that a client asks for; None: none. Raises: InvalidParameter; also for another system."""
    if not text:
        return None
    try:
        found = parse_platform(text, host_architecture())
    except ValueError as error:
        raise InvalidParameter(str(error)) from None
    if found.os != "linux":
        raise InvalidParameter("operating system is not supported")
    return found
