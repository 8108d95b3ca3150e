"""This host's architecture in Go's words, as the API names it."""

import os


def own_machine() -> str:
    machine = os.uname().machine
    return {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm"}.get(machine, machine)
