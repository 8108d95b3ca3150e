"""Checks of a service's secrets and configs: the references must exist, and the files must be possible."""

import re
from collections.abc import Iterable, Sequence
from typing import Final

from bennu.cluster.api_types import ContainerSpec, FileTarget
from bennu.cluster.errors import invalid
from bennu.errors import InvalidParameter, NotImplementedHere

CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
MAX_NUMBER: Final = 2**32  # of users, groups and modes
Reference = tuple[str, str, FileTarget | None]  # id and name of the secret or config, and its file


def check_files(spec: ContainerSpec) -> None:
    """Check the secrets and configs of a container's specification. Raises: BennuError in the words clients know."""
    _check_references("secret", [(one.secret_id, one.secret_name, one.file) for one in spec.secrets or ()])
    for config in spec.configs or ():
        if config.file is None and config.runtime is None:
            raise InvalidParameter("invalid Config: either File or Runtime should be set")
        if config.runtime is not None:
            raise NotImplementedHere("configs as credential specs (Runtime) are not implemented")
    _check_references("config", [(one.config_id, one.config_name, one.file) for one in spec.configs or ()])


def _check_references(kind: str, references: Iterable[Reference]) -> None:
    targets: dict[str, str] = {}
    for row_id, name, file in references:
        if not row_id or not name:
            raise invalid(f"malformed {kind} reference")
        if file is None:
            raise invalid(f"malformed {kind} reference, no target provided")
        _check_file(kind, file)
        if file.name in targets:
            raise invalid(
                f"{kind} references '{targets[file.name]}' and '{name}' have a conflicting target: '{file.name}'"
            )
        targets[file.name] = name


def _check_file(kind: str, file: FileTarget) -> None:
    if not _is_file_name(file.name.split("/")) or CONTROL.search(file.name):
        raise invalid(f"malformed file {kind} reference, invalid target file name provided")
    if not 0 <= file.mode < MAX_NUMBER:
        raise InvalidParameter(
            f"json: cannot unmarshal number {file.mode} into Go struct field Mode of type fs.FileMode"
        )
    for what, text in (("UID", file.uid), ("GID", file.gid)):
        if text and not (text.isascii() and text.isdecimal() and len(text) <= 10 and int(text) < MAX_NUMBER):
            raise invalid(f"malformed file {kind} reference, invalid {what} {text[:40]!r}")


def _is_file_name(parts: Sequence[str]) -> bool:
    """Tell whether the path names a file, and names it inside the folder it says."""
    return parts[-1] not in ("", ".") and ".." not in parts
