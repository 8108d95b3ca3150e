"""The flags that instructions of a Dockerfile may carry: those of Docker's classic builder that a build honours. Pure.

What is not listed is refused, and never left to the builder behind us: it knows flags that reach into its host.
"""

import re
from collections.abc import Mapping
from typing import Final

from bennu.errors import InvalidParameter, NotImplementedHere
from bennu.images.dockerfile import Instruction

HONOURED: Final[Mapping[str, frozenset[str]]] = {
    "FROM": frozenset(("platform",)),
    "COPY": frozenset(("from", "chown", "chmod", "link")),
    "ADD": frozenset(("chown", "chmod", "link")),
    "HEALTHCHECK": frozenset(("interval", "timeout", "start-period", "start-interval", "retries")),
}
# Known to Docker's parser; the classic builder refuses them, or passes over what they ask for.
BUILDKIT: Final[Mapping[str, frozenset[str]]] = {
    "RUN": frozenset(("mount", "network", "device")),
    "COPY": frozenset(("exclude",)),
    "ADD": frozenset(("checksum", "exclude", "keep-git-dir", "unpack")),
}
# The builder behind us would take anything else apart in its own way: bytes of some letters are blanks to it.
PLAIN: Final = re.compile(r"[!#-&(-\[\]-~]*")
HELP: Final = "https://docs.docker.com/go/buildkit/"
NEEDS_BUILDKIT: Final = f"requires BuildKit. Refer to {HELP} to learn how to build images with BuildKit enabled"


def check_flags(instruction: Instruction) -> None:
    """Raises: InvalidParameter for flags that nobody knows; NotImplementedHere for BuildKit's."""
    word = instruction.word
    honoured, known = HONOURED.get(word, frozenset[str]()), BUILDKIT.get(word, frozenset[str]())
    for name, value in instruction.flags.items():
        if name not in honoured | known:
            raise InvalidParameter(f"unknown flag: --{name}")
        if not value and name != "link":
            raise InvalidParameter(f"missing a value on flag: --{name}")
        if name == "link" and value not in ("", "true", "false"):
            raise InvalidParameter(f"expecting boolean value for flag --link, not: {value}")
        if name in known:
            raise NotImplementedHere(f"the --{name} option {NEEDS_BUILDKIT}")
        if not PLAIN.fullmatch(value):
            raise InvalidParameter(f"invalid value for flag --{name}: {value}")
    if instruction.rest.startswith("--"):
        raise InvalidParameter(f"unknown flag: {instruction.rest.split()[0]}")
