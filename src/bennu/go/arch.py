"""GOARCH: what Go, and so images and Docker's API, call the architectures of machines."""

from typing import Final

ARCHITECTURES: Final = {
    "x86_64": "amd64",
    "x64": "amd64",
    "aarch64": "arm64",
    "armhf": "arm",
    "armv6l": "arm",
    "armv7l": "arm",
    "i386": "386",
    "i686": "386",
}


def architecture(machine: str) -> str:
    """Translate what uname(2) calls a machine into GOARCH; what is Go's already, or unknown, is answered as it is."""
    return ARCHITECTURES.get(machine, machine)
