"""This machine in the words of images (Go's)."""

import platform
from typing import Final

ARCHITECTURES: Final = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "armv6l": "arm", "i686": "386"}


def host_architecture() -> str:
    machine = platform.machine()
    return ARCHITECTURES.get(machine, machine)
