"""Users looked up in files a container may have written, without being led out of it."""

import os
from pathlib import Path

import pytest

from bennu.errors import BennuError
from bennu.runtime import RuntimeFailure, User, make_working_dir, open_inside, read_inside, resolve_user
from bennu.runtime.users import find_user

PASSWD = """root:x:0:0:root:/root:/bin/sh
# a comment

broken line
ada:x:1000:1000:Ada:/home/ada:/bin/sh
bare:x:7:8
1000:x:55:55:named like a number:/n:/bin/sh
"""
GROUP = """root:x:0:
wheel:x:10:root,ada
users:x:100:ada
staff:x:200:ada,bob
"""


@pytest.mark.parametrize(
    ("user", "group_add", "expected"),
    [
        pytest.param("", [], User(0, 0, (0, 10), "/root"), id="default-is-root"),
        pytest.param("ada", [], User(1000, 1000, (1000, 10, 100, 200), "/home/ada"), id="name"),
        pytest.param("1000", [], User(1000, 1000, (1000, 10, 100, 200), "/home/ada"), id="number-of-a-name"),
        pytest.param("ada:users", [], User(1000, 100, (100,), "/home/ada"), id="name-and-group"),
        pytest.param("ada:77", [], User(1000, 77, (77,), "/home/ada"), id="name-and-number"),
        pytest.param("4242", [], User(4242, 0, (0,), "/"), id="unknown-number"),
        pytest.param("4242:4343", [], User(4242, 4343, (4343,), "/"), id="unknown-numbers"),
        pytest.param("bare", [], User(7, 8, (8,), "/"), id="short-line"),
        pytest.param("0", ["users", "33", "wheel"], User(0, 0, (0, 10, 100, 33), "/root"), id="added-groups"),
    ],
)
def test_users(user: str, group_add: list[str], expected: User) -> None:
    assert find_user(user, group_add, PASSWD, GROUP) == expected


@pytest.mark.parametrize(
    ("user", "group_add", "told"),
    [
        ("nosuch", [], "unable to find user nosuch: no matching entries in passwd file"),
        ("ada:nosuch", [], "unable to find group nosuch: no matching entries in group file"),
        ("ada", ["nosuch"], "unable to find group nosuch: no matching entries in group file"),
        ("4294967295", [], "uids and gids must be in range 0-2147483647"),
        ("-1", [], "unable to find user -1: no matching entries in passwd file"),
    ],
)
def test_who_cannot_be_found(user: str, group_add: list[str], told: str) -> None:
    with pytest.raises(RuntimeFailure) as caught:
        find_user(user, group_add, PASSWD, GROUP)
    assert (str(caught.value), caught.value.exit_code) == (told, 128)


def test_an_image_without_files_knows_numbers_only(tmp_path: Path) -> None:
    assert resolve_user(tmp_path, "") == User(0, 0, (0,), "/")
    assert resolve_user(tmp_path, "5:6") == User(5, 6, (6,), "/")
    with pytest.raises(RuntimeFailure, match="no matching entries in passwd file"):
        resolve_user(tmp_path, "root")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A root filesystem whose links try to get out."""
    (tmp_path / "secret").write_text("of the host")
    root = tmp_path / "root"
    (root / "etc").mkdir(parents=True)
    (root / "etc/real").write_text("inside")
    (root / "secret").write_text("of the container")
    for name, target in {
        "up": "../../../../../../secret",
        "absolute": "/etc/real",
        "host": str(tmp_path / "secret"),
        "loop": "loop",
        "to-dir": "/etc",
        "chain": "absolute",
        "proc": "/proc/self/root",
    }.items():
        (root / "etc" / name).symlink_to(target)
    return root


def test_links_mean_what_they_mean_inside(root: Path) -> None:
    assert read_inside(root, "/etc/absolute") == "inside"
    assert read_inside(root, "etc/chain") == "inside"
    assert read_inside(root, "/etc/to-dir/../etc/real") == "inside"
    assert read_inside(root, "/../../etc/real") == "inside"
    assert read_inside(root, "/etc/up") == "of the container"
    assert read_inside(root, "/etc/../../../secret") == "of the container"


@pytest.mark.parametrize("path", ["/etc/host", "/etc/proc/etc/hostname", "/etc/nothing"])
def test_nothing_outside_is_found(root: Path, path: str) -> None:
    with pytest.raises(FileNotFoundError):
        read_inside(root, path)


def test_a_loop_is_an_error(root: Path) -> None:
    with pytest.raises(OSError, match="Too many levels"):
        read_inside(root, "/etc/loop")


def test_what_is_no_file_is_not_read(root: Path) -> None:
    with pytest.raises(OSError, match="etc"):
        read_inside(root, "/etc")


def test_opening_a_pipe_does_not_block(root: Path) -> None:
    os.mkfifo(root / "etc/pipe")
    with pytest.raises(OSError, match="pipe"):
        read_inside(root, "/etc/pipe")
    with open_inside(root, "/etc/pipe"):
        pass


def test_a_working_directory_is_made_inside(root: Path) -> None:
    make_working_dir(root, "/srv/app/x")
    assert (root / "srv/app/x").is_dir()
    make_working_dir(root, "/srv/app/x")
    make_working_dir(root, "/etc/to-dir/new")
    assert (root / "etc/new").is_dir()
    (root / "etc/out").symlink_to("/nowhere/yet")
    make_working_dir(root, "/")


@pytest.mark.parametrize("path", ["/etc/real", "/etc/real/below", "/etc/absolute/x"])
def test_a_file_in_the_way_of_a_working_directory(root: Path, path: str) -> None:
    with pytest.raises(BennuError, match=r"^Cannot mkdir: /etc/\S+ is not a directory$"):
        make_working_dir(root, path)


def test_an_id_of_thousands_of_digits_is_out_of_range() -> None:
    with pytest.raises(RuntimeFailure, match="uids and gids must be in range"):
        find_user("9" * 5000, (), "", "")
