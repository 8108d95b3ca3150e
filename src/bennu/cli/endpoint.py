"""Decides where the daemon answers."""

import os
from typing import Final

DEFAULT_HOST: Final = "unix:///run/bennu/bennu.sock"


def find_host(given: str | None) -> str:
    """Answer the daemon's address: the option, then BENNU_HOST, then DOCKER_HOST, then the default socket."""
    host = given or os.environ.get("BENNU_HOST") or os.environ.get("DOCKER_HOST") or DEFAULT_HOST
    return host if "://" in host else f"tcp://{host}"
