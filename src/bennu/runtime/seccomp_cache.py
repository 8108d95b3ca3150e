"""Remembers compiled system call filters.

Compiling the default profile takes crun as long as all the rest of a creation. It leaves the result with the
container's state and takes a compiled filter instead of a profile; so what it compiled first is handed to it
afterwards. Containers have one, and the steps of builds.
"""

import base64
import contextlib
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

ANNOTATION: Final = "run.oci.seccomp_bpf_data"
KEPT: Final = 32


class SeccompCache:
    """The compiled filters of the profiles used last, by profile."""

    def __init__(self) -> None:
        self._compiled: dict[str, str] = {}

    def shorten(self, spec: Mapping[str, Any]) -> Mapping[str, Any]:
        """Replace the profile of a configuration by its compiled form, if that is known."""
        profile = spec["linux"].get("seccomp")
        compiled = self._compiled.pop(_key(profile), "") if profile else ""
        if not compiled:
            return spec
        self._compiled[_key(profile)] = compiled  # the last used is the last to go
        linux = {**spec["linux"], "seccomp": {**profile, "syscalls": []}}
        return {**spec, "linux": linux, "annotations": {**spec.get("annotations", {}), ANNOTATION: compiled}}

    def learn(self, spec: Mapping[str, Any], compiled: Path) -> None:
        """Keep what crun compiled from the profile of a configuration (as it was before `shorten`)."""
        if self.misses(spec):
            with contextlib.suppress(OSError):
                self.keep(spec, compiled.read_bytes())

    def misses(self, spec: Mapping[str, Any]) -> bool:
        """Tell whether the compiled form of its profile is not known yet."""
        profile = spec["linux"].get("seccomp")
        return bool(profile) and _key(profile) not in self._compiled

    def keep(self, spec: Mapping[str, Any], content: bytes) -> None:
        """Remember a compiled form; see `learn`."""
        profile = spec["linux"].get("seccomp")
        if profile and content:
            self._compiled[_key(profile)] = base64.b64encode(content).decode()
            while len(self._compiled) > KEPT:
                del self._compiled[next(iter(self._compiled))]


def _key(profile: Mapping[str, Any]) -> str:
    return hashlib.sha256(msgspec.json.encode(profile)).hexdigest()
