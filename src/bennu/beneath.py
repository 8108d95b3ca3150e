"""The one place where a name or path that comes from a client, an image or a record is joined to a folder of ours.

What is answered lies in that folder, whatever was asked: a name is one entry of it, a path is cleaned as the kernel
cleans one whose root the folder is. Links are not followed here: what a container can change is for `bennu.confined`.
"""

import posixpath
from pathlib import Path

from bennu.errors import InvalidParameter


def entry_of(folder: Path, name: str) -> Path:
    """Answer the path of the entry `name`. Raises: InvalidParameter for what is not the name of one entry."""
    if name in ("", ".", "..") or "/" in name or "\0" in name:
        raise InvalidParameter(f"{name!r} is not the name of a file")
    return folder / name


def beneath(folder: Path, path: str) -> Path:
    """Join `path`, of which the folder is the root; `..` does not lead out of it. Raises: InvalidParameter."""
    return folder / clean(path).lstrip("/")


def clean(path: str) -> str:
    """Make a path absolute, without `.`, `..`, or slashes too many. Raises: InvalidParameter if it holds a NUL."""
    if "\0" in path:
        raise InvalidParameter(f"{path!r} is not a path: it holds a NUL")
    return "/" + posixpath.normpath(f"/{path}").lstrip("/")
