"""`docker diff`, told from the writable layer and the image's layers."""

import asyncio
import os
from pathlib import Path

import pytest

from bennu.confined.changes import ADDED, DELETED, MODIFIED
from bennu.confined.client import HELPER, Folder

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="the helper shuts itself in, which needs root")


def changes(upper: Path, *lowers: str) -> list[tuple[str, int]]:
    """`lowers`: folders beside `upper`, topmost first."""
    found = asyncio.run(HELPER.ask("changes", Folder(upper), Folder(upper.parent), enter=False, lowers=list(lowers)))
    return [(path, kind) for path, kind in found]


def test_added_modified_and_deleted_are_told_apart(tmp_path: Path) -> None:
    upper, top, bottom = (tmp_path / name for name in ("upper", "top", "bottom"))
    for folder in (upper / "etc", top / "etc", bottom / "etc", upper / "new"):
        folder.mkdir(parents=True)
    (bottom / "etc/hosts").touch()
    (bottom / "etc/gone-in-image").touch()
    (bottom / "etc/removed").touch()
    os.mknod(top / "etc/gone-in-image", 0o20000, 0)
    (upper / "etc/hosts").write_text("changed")
    (upper / "etc/gone-in-image").touch()
    os.mknod(upper / "etc/removed", 0o20000, 0)
    (upper / "new/file").touch()
    assert changes(upper, "top", "bottom") == [
        ("/etc", MODIFIED),
        ("/etc/gone-in-image", ADDED),
        ("/etc/hosts", MODIFIED),
        ("/etc/removed", DELETED),
        ("/new", ADDED),
        ("/new/file", ADDED),
    ]


def test_what_the_engine_put_into_the_root_is_no_change(tmp_path: Path) -> None:
    upper, image = tmp_path / "upper", tmp_path / "image"
    for folder in (upper / "etc", image / "etc"):
        folder.mkdir(parents=True)
    for name in (".dockerenv", "etc/hostname", "etc/hosts", "etc/resolv.conf"):
        (upper / name).touch()
    (upper / "proc").mkdir()
    assert changes(upper, "image") == []
    (upper / "etc/own").touch()
    assert changes(upper, "image") == [("/etc", MODIFIED), ("/etc/own", ADDED)]
    (upper / "etc/own").unlink()
    (upper / "etc").chmod(0o700)
    assert changes(upper, "image") == [("/etc", MODIFIED)]


def test_a_link_of_the_image_leads_nowhere_else(tmp_path: Path) -> None:
    """What the image has at a path is looked for below its own root only."""
    upper, image = tmp_path / "upper", tmp_path / "image"
    (upper / "out").mkdir(parents=True)
    (upper / "out/passwd").touch()
    image.mkdir()
    (image / "out").symlink_to("/etc")
    assert changes(upper, "image") == [("/out", MODIFIED), ("/out/passwd", ADDED)]
