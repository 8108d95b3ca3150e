import os
from pathlib import Path

import pytest

from bennu.engine.changes import ADDED, DELETED, MODIFIED, read_changes


@pytest.mark.skipif(os.geteuid() != 0, reason="making a whiteout (a device node) needs root")
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
    assert read_changes(upper, [top, bottom]) == [
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
    assert read_changes(upper, [image]) == []
    (upper / "etc/own").touch()
    assert read_changes(upper, [image]) == [("/etc", MODIFIED), ("/etc/own", ADDED)]
    (upper / "etc/own").unlink()
    (upper / "etc").chmod(0o700)
    assert read_changes(upper, [image]) == [("/etc", MODIFIED)]


def test_a_container_that_never_ran_has_changed_nothing(tmp_path: Path) -> None:
    assert read_changes(tmp_path / "absent", []) == []
