"""Names and paths from elsewhere, joined to folders of ours: none leads out."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bennu.beneath import beneath, clean, entry_of
from bennu.errors import InvalidParameter

ROOT = Path("/data/root")
NASTY = st.text(alphabet="./a\n\0\u202e", max_size=12)


@given(NASTY)
def test_a_name_is_one_entry_of_its_folder_or_refused(name: str) -> None:
    try:
        place = entry_of(ROOT, name)
    except InvalidParameter:
        return
    assert place.parent == ROOT and place.name == name


@given(NASTY)
def test_a_path_stays_below_its_folder_or_is_refused(path: str) -> None:
    try:
        place = beneath(ROOT, path)
    except InvalidParameter:
        assert "\0" in path
        return
    assert place == ROOT or ROOT in place.parents
    assert ".." not in place.parts


@pytest.mark.parametrize(
    ("path", "cleaned"),
    [("", "/"), ("/", "/"), ("//a", "/a"), ("a//b/./c/", "/a/b/c"), ("../../a", "/a"), ("/a/../../../b", "/b")],
)
def test_paths_are_cleaned_as_the_kernel_walks_them_from_a_root(path: str, cleaned: str) -> None:
    assert clean(path) == cleaned
