"""Users looked up in the texts of a container's account files."""

import pytest

from bennu.runtime import RuntimeFailure, User, find_user

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


def test_an_image_without_files_knows_numbers_only() -> None:
    assert find_user("", [], "", "") == User(0, 0, (0,), "/")
    assert find_user("5:6", [], "", "") == User(5, 6, (6,), "/")
    with pytest.raises(RuntimeFailure, match="no matching entries in passwd file"):
        find_user("root", [], "", "")


def test_an_id_of_thousands_of_digits_is_out_of_range() -> None:
    with pytest.raises(RuntimeFailure, match="uids and gids must be in range"):
        find_user("9" * 5000, (), "", "")
