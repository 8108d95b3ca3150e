"""Paths as BuildKit joins and cleans them. Pure."""

import posixpath


def clean(path: str, folder: str = "/") -> str:
    """Answer a path as an absolute and clean one; what is not absolute lies in the folder."""
    joined = posixpath.normpath(posixpath.join("/", folder, path))
    return "/" + joined.lstrip("/")


def destination(path: str, folder: str) -> str:
    """Clean where a copy goes; a slash at its end says that it is a folder and stays."""
    cleaned = clean(path, folder)
    is_folder = path in ("", ".") or path.endswith(("/", "/."))
    return f"{cleaned}/" if is_folder and cleaned != "/" else cleaned
