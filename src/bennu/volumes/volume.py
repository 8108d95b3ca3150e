"""What a volume is, and what it may be called. Pure."""

import re
from typing import Final

import msgspec

from bennu.errors import InvalidParameter

NAME: Final = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+")
NAME_BYTES: Final = 255
ANONYMOUS_LABEL: Final = "com.docker.volume.anonymous"


class Volume(msgspec.Struct, kw_only=True):
    """One volume as it is kept on disk. None for labels and options: not given, which clients are shown as null."""

    name: str
    driver: str = "local"
    mountpoint: str
    created_ns: int
    labels: dict[str, str] | None = None
    options: dict[str, str] | None = None
    removing: bool = False
    born_with: str = ""  # the container it was made for and belongs to; "" when nobody's, or taken over
    scope: str = "local"
    mounted_by: list[str] = []  # of a plugin's: who asked for it and has not given it back

    @property
    def is_local(self) -> bool:
        """Tell whether it is a folder of ours, and no plugin's."""
        return self.driver == "local"

    @property
    def anonymous(self) -> bool:
        return ANONYMOUS_LABEL in (self.labels or {})


def check_name(name: str) -> None:
    """Refuse names that a volume cannot have. Raises: InvalidParameter in dockerd's words."""
    if len(name) == 1:
        raise InvalidParameter(
            f"create {name}: volume name is too short, names should be at least two alphanumeric characters"
        )
    if not NAME.fullmatch(name):
        raise InvalidParameter(
            f'create {name}: "{name}" includes invalid characters for a local volume name, only '
            '"[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed. If you intended to pass a host directory, use absolute path'
        )
    if len(name) > NAME_BYTES:
        raise InvalidParameter(f"create {name[:32]}…: volume name is too long, at most {NAME_BYTES} characters fit")
