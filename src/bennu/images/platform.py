"""This machine in the words of images (Go's)."""

import platform

from bennu.go.arch import architecture


def host_architecture() -> str:
    return architecture(platform.machine())
