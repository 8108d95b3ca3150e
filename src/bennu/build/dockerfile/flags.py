"""The flags of instructions: which there are, and how they are read. Pure."""

from collections.abc import Mapping, Sequence
from typing import Final

from bennu.build.dockerfile.failure import DockerfileError, suggest

TEXT: Final = "text"
TEXTS: Final = "texts"  # may be given more than once
SWITCH: Final = "switch"

HONOURED: Final[Mapping[str, Mapping[str, str]]] = {
    "FROM": {"platform": TEXT},
    "RUN": {"mount": TEXTS, "network": TEXT, "device": TEXTS},
    "COPY": {"chown": TEXT, "from": TEXT, "chmod": TEXT, "link": SWITCH, "exclude": TEXTS},
    "ADD": {
        "chown": TEXT,
        "chmod": TEXT,
        "link": SWITCH,
        "keep-git-dir": SWITCH,
        "checksum": TEXT,
        "unpack": SWITCH,
        "exclude": TEXTS,
    },
    "HEALTHCHECK": {"interval": TEXT, "timeout": TEXT, "start-period": TEXT, "start-interval": TEXT, "retries": TEXT},
}


# Newer than the Dockerfile of dockerd 28.5: for files whose `# syntax=` names a version that has them.
NEWER: Final[Mapping[str, Mapping[str, str]]] = {"COPY": {"parents": SWITCH}}


class Flags:
    """The flags that an instruction was given."""

    def __init__(self, instruction: str, given: Sequence[str], *, newer: bool = False) -> None:
        """Read flags like `--x=y`. Raises: DockerfileError for one that is unknown here, or not whole."""
        known = {**HONOURED.get(instruction, {}), **(NEWER.get(instruction, {}) if newer else {})}
        self._texts: dict[str, list[str]] = {}
        for flag in given:
            written, equals, value = flag.partition("=")
            name = written.removeprefix("--")
            if (kind := known.get(name)) is None:
                raise DockerfileError(f"unknown flag: {written}{suggest(name, known)}")
            if name in self._texts and kind != TEXTS:
                raise DockerfileError(f"duplicate flag specified: {written}")
            if kind == SWITCH:
                if (equals and not value) or value.lower() not in ("", "true", "false"):
                    wrong = f"expecting boolean value for flag {written}, not: {value}"
                    raise DockerfileError(wrong if value else f"missing a value on flag: {written}")
            elif not equals:
                raise DockerfileError(f"missing a value on flag: {written}")
            self._texts.setdefault(name, []).append(value)

    def text(self, name: str, default: str = "") -> str:
        return self._texts.get(name, [default])[0]

    def texts(self, name: str) -> tuple[str, ...]:
        return tuple(self._texts.get(name, ()))

    def switch(self, name: str) -> bool | None:
        """Answer a switch; None: not given."""
        return None if name not in self._texts else self.text(name).lower() != "false"
