"""The platform of this host, in the words of images (GOARCH)."""

import platform

from bennu.go.arch import architecture


def host_architecture() -> str:
    """Answer this host's architecture: `amd64`, `arm64`, …"""
    return architecture(platform.machine())
