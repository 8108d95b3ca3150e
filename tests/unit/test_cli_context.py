"""Build contexts: what .dockerignore leaves, as a tar stream."""

import io
import os
import tarfile
from pathlib import Path

import pytest

from bennu.cli.commands.build import place_dockerfile
from bennu.cli.context import stream_context
from bennu.cli.failure import Failure
from bennu.cli.ignore import IgnoreRules

RULES = [
    ("*.log", {"a.log": True, "b/a.log": False, "a.txt": False}),
    ("**/*.log", {"a.log": True, "b/c/a.log": True}),
    ("node_modules", {"node_modules": True, "node_modules/x/y": True, "a/node_modules": False}),
    ("/build/", {"build/x": True, "other/build": False}),
    ("a/**/z", {"a/z": True, "a/b/c/z": True, "a/b": False}),
    ("a?c", {"abc": True, "a/c": False}),
    ("[a-c]x", {"bx": True, "dx": False}),
    ("*\n!keep", {"x": True, "keep": False, "keep/y": False}),
    ("docs\n!docs/README*\ndocs/README.secret", {"docs/a": True, "docs/README.md": False, "docs/README.secret": True}),
    ("# comment\n\n  spaced  ", {"# comment": False, "spaced": True}),
    ("./x/../y", {"y": True, "x": False}),
    ("dot.file", {"dot.file": True, "dotxfile": False}),
]


@pytest.mark.parametrize(("lines", "expected"), RULES, ids=[lines for lines, _ in RULES])
def test_ignore_rules_decide(lines: str, expected: dict[str, bool]) -> None:
    rules = IgnoreRules(lines.split("\n"))
    assert {path: rules.excludes(path) for path in expected} == expected


def read_tar(root: Path, dockerfile: str = "Dockerfile") -> dict[str, tarfile.TarInfo]:
    data = io.BytesIO(b"".join(stream_context(root, dockerfile)))
    with tarfile.open(fileobj=data) as archive:
        return {member.name: member for member in archive}


def test_a_context_holds_every_kind_of_file_under_roots_name(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM scratch\n")
    (tmp_path / "dir" / "empty").mkdir(parents=True)
    (tmp_path / "dir" / "run.sh").write_text("x" * 1000)
    (tmp_path / "dir" / "run.sh").chmod(0o755)
    (tmp_path / "link").symlink_to("dir/run.sh")
    os.link(tmp_path / "Dockerfile", tmp_path / "hard")
    (tmp_path / ("long" * 40)).write_text("a name beyond the old limit")
    found = read_tar(tmp_path)
    assert set(found) == {"Dockerfile", "dir", "dir/empty", "dir/run.sh", "link", "hard", "long" * 40}
    assert found["dir/run.sh"].mode == 0o755
    assert found["dir/run.sh"].size == 1000
    assert found["link"].issym()
    assert found["hard"].islnk()
    assert {member.uid for member in found.values()} == {0}


def test_the_dockerfile_is_sent_even_when_it_is_ignored(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM scratch\n")
    (tmp_path / "secret").write_text("x")
    (tmp_path / ".dockerignore").write_text("*\n")
    assert set(read_tar(tmp_path)) == {"Dockerfile", ".dockerignore"}


def test_a_kept_file_in_an_ignored_folder_is_sent(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    for name in ("Dockerfile", "docs/a", "docs/keep"):
        (tmp_path / name).write_text("x")
    (tmp_path / ".dockerignore").write_text("docs\n!docs/keep\n")
    assert set(read_tar(tmp_path)) == {"Dockerfile", ".dockerignore", "docs/keep"}


def test_a_dockerfile_from_elsewhere_is_sent_along(tmp_path: Path) -> None:
    context = tmp_path / "context"
    context.mkdir()
    other = tmp_path / "Other"
    other.write_text("FROM x\n")
    name, extra = place_dockerfile(context, str(other))
    assert extra == {name: b"FROM x\n"}


def test_a_missing_dockerfile_is_named(tmp_path: Path) -> None:
    with pytest.raises(Failure, match="unable to prepare context"):
        place_dockerfile(tmp_path, None)
