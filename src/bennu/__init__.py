"""Bennu: a container engine and service orchestrator about the death and resurrection of containers."""

from typing import Final

__version__: Final = "0.1.0"
API_VERSION: Final = "1.51"
MIN_API_VERSION: Final = "1.24"
