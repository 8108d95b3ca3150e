"""COPY, ADD, digests and sent trees, done by the confined helper.

What is expected was seen with dockerd 28.5: the same instructions on the same trees.
"""

import asyncio
import io
import os
import shutil
import stat
import subprocess
import tarfile
import time
from pathlib import Path
from typing import Any

import pytest

from bennu.build.graph import Copy, FileAction, Files, Mkdir, Mkfile, Remove, Scratch
from bennu.build.steps.trees import (
    FileStepFailed,
    MissingSource,
    Selection,
    apply_files,
    digest_tree,
    select,
    send_tree,
    tar_tree,
)

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="the helper shuts itself in, which needs root")
SOURCE = Scratch()
OLD = 1577934245


class Trees:
    """A base, a context, and what a step makes of both."""

    def __init__(self, root: Path) -> None:
        self.base, self.context, self.into = (root / name for name in ("base", "context", "into"))
        for folder in (self.base, self.context, self.into):
            folder.mkdir()
        (self.base / "etc").mkdir()
        (self.base / "etc/passwd").write_text("root:x:0:0::/:\nalice:x:1000:1001::/:\n")
        (self.base / "etc/group").write_text("root:x:0:\nstaff:x:50:alice\n")

    @property
    def layer(self) -> Path:
        return self.into / "diff"

    async def apply(self, *actions: FileAction) -> None:
        shutil.rmtree(self.into)
        self.into.mkdir()
        node = Files(base=Scratch(), actions=actions)
        await apply_files(node, [self.base], self.into, {SOURCE: [self.context]})

    async def copy(self, *paths: str, to: str, **words: Any) -> list[str]:
        """Copy; answer what the layer holds then, without etc: `name mode uid:gid` of each."""
        await self.apply(Copy(source=SOURCE, paths=paths, destination=to, **words))
        return self.shown()

    def shown(self) -> list[str]:
        shown = []
        for path in sorted(self.layer.rglob("*")):
            seen = path.lstat()
            shown.append(f"{path.relative_to(self.layer)} {stat.S_IMODE(seen.st_mode):o} {seen.st_uid}:{seen.st_gid}")
        return shown


@pytest.fixture
def trees(tmp_path: Path) -> Trees:
    made = Trees(tmp_path)
    d = made.context / "d"
    (d / "sub/deep").mkdir(parents=True)
    for name in ("a.txt", "b.txt", "sub/s.txt", "sub/deep/p.txt"):
        (d / name).write_text(name)
    (d / "a.txt").chmod(0o4755)
    (d / "b.txt").chmod(0o640)
    (d / "sub").chmod(0o750)
    (d / "l").symlink_to("a.txt")
    os.link(d / "a.txt", d / "hard")
    os.mkfifo(d / "pipe", 0o644)
    os.setxattr(d / "b.txt", "user.note", b"kept")
    (made.context / "ldd").symlink_to("d")
    (made.context / "out").symlink_to("/etc/passwd")
    for path in ("b.txt", "sub", "."):
        os.utime(d / path, (OLD, OLD))
    return made


ALL = ["a.txt 4755", "b.txt 640", "hard 4755", "l 777", "pipe 644", "sub 750", "sub/deep 755", "sub/deep/p.txt 644"]
ALL += ["sub/s.txt 644"]


def below(folder: str, *entries: str, owner: str = "0:0") -> list[str]:
    return [f"{folder}/{entry} {owner}" for entry in entries]


async def test_a_folder_stands_for_what_is_in_it_with_its_looks_and_times(trees: Trees) -> None:
    assert await trees.copy("/d", to="/n/x/") == ["n 755 0:0", "n/x 755 0:0", *below("n/x", *ALL)]
    made = trees.layer / "n/x"
    assert made.stat().st_mtime == (made / "sub").stat().st_mtime == (made / "b.txt").stat().st_mtime == OLD
    assert (made / "a.txt").samefile(made / "hard"), "names of one file stay names of one file"
    assert (made / "l").readlink() == Path("a.txt") and stat.S_ISFIFO((made / "pipe").lstat().st_mode)
    assert os.getxattr(made / "b.txt", "user.note") == b"kept"
    assert await trees.copy("/ldd/", to="/n/x") == ["n 755 0:0", "n/x 755 0:0", *below("n/x", *ALL)]


async def test_a_file_goes_into_a_folder_that_is_there_or_asked_for_by_a_slash(trees: Trees) -> None:
    assert (await trees.copy("/d/b.txt", to="/n/q"))[-1] == "n/q 640 0:0"
    assert (await trees.copy("/d/b.txt", to="/n/q/"))[-1] == "n/q/b.txt 640 0:0"
    assert (await trees.copy("/d/b.txt", to="/n/q/."))[-1] == "n/q/b.txt 640 0:0"
    (trees.base / "there").mkdir()
    assert (await trees.copy("/d/b.txt", to="/there"))[-1] == "there/b.txt 640 0:0"
    assert (await trees.copy("/d/l", to="/n/"))[-1] == "n/l 4755 0:0", "a link that is named is followed"
    assert await trees.copy("/d/a.txt", "/d/b.txt", to="/n") == ["n 640 0:0"], "the last one is left"


async def test_owners_are_looked_up_in_the_root_and_unknown_ones_are_root(trees: Trees) -> None:
    async def owner(user: str) -> str:
        return (await trees.copy("/d/b.txt", to="/n/x", user=user))[-1].split()[2]

    assert await owner("alice:staff") == "1000:50"
    assert await owner("alice") == "1000:1001"
    assert await owner("7") == "7:7"
    assert await owner("alice:7") == "1000:7"
    assert await owner(":staff") == "0:50"
    assert await owner("nobodyhere:nogroup") == "0:0"
    (trees.base / "etc/passwd").unlink()
    (trees.base / "etc/passwd").symlink_to("/../../../../../etc/passwd")
    assert await owner("daemon") == "0:0", "the host's users are not looked at"


async def test_modes_are_given_to_what_is_copied_and_octal_ones_to_the_folders_above(trees: Trees) -> None:
    words = await trees.copy("/d", to="/n/x", user="alice:staff", mode="u+x,go=")
    assert words[:4] == ["n 755 1000:50", "n/x 755 1000:50", "n/x/a.txt 4700 1000:50", "n/x/b.txt 700 1000:50"]
    octal = await trees.copy("/d", to="/n/x", mode="2751")
    assert octal[:4] == ["n 751 0:0", "n/x 751 0:0", "n/x/a.txt 2751 0:0", "n/x/b.txt 2751 0:0"]
    assert (await trees.copy("/d/sub", to="/n/q", mode="777"))[:2] == ["n 755 0:0", "n/q 755 0:0"]


async def test_wildcards_select_and_nothing_selected_is_no_error(trees: Trees) -> None:
    assert await trees.copy("/d/*.txt", to="/n/") == ["n 755 0:0", *below("n", "a.txt 4755", "b.txt 640")]
    assert (await trees.copy("/d/*/s.txt", to="/n/"))[-1] == "n/s.txt 644 0:0"
    assert await trees.copy("/d/[^a].txt", to="/n/") == ["n 755 0:0", "n/b.txt 640 0:0"]
    assert await trees.copy("/nosuch*", to="/n/") == []
    assert await trees.copy("/l*", to="/n/") == ["n 755 0:0", *below("n", *ALL)], "a folder behind a link"


async def test_what_is_excluded_is_left_out_unless_it_is_taken_back(trees: Trees) -> None:
    rest = ["a.txt 4755", "b.txt 640", "hard 4755", "l 777", "pipe 644"]
    assert await trees.copy("/d", to="/n/", exclude=("sub",)) == ["n 755 0:0", *below("n", *rest)]
    taken_back = await trees.copy("/d", to="/n/", exclude=("sub", "!sub/s.txt"))
    assert taken_back == ["n 755 0:0", *below("n", *rest, "sub 750", "sub/s.txt 644")]
    assert "n/sub/deep 755 0:0" in await trees.copy("/d", to="/n/", exclude=("**/*.txt",))
    assert (await trees.copy("/d/b.txt", to="/n/", exclude=("b.txt",)))[-1] == "n/b.txt 640 0:0", "the source itself"


async def test_parents_are_kept_from_the_pivot_on(trees: Trees) -> None:
    assert await trees.copy("/d/sub/deep/p.txt", to="/n/", parents=True) == [
        *("n 755 0:0", "n/d 755 0:0", "n/d/sub 750 0:0", "n/d/sub/deep 755 0:0", "n/d/sub/deep/p.txt 644 0:0")
    ]
    pivoted = await trees.copy("/d/sub/./deep/*.txt", to="/n/", parents=True)
    assert pivoted == ["n 755 0:0", "n/deep 755 0:0", "n/deep/p.txt 644 0:0"]


async def test_the_destination_keeps_its_looks_and_folders_below_take_the_sources(trees: Trees) -> None:
    (trees.base / "n/sub").mkdir(parents=True)
    for name in ("n", "n/sub"):
        os.chown(trees.base / name, 9, 9)
        (trees.base / name).chmod(0o700)
    assert await trees.copy("/d", to="/n") == ["n 700 9:9", *below("n", *ALL)]


async def test_links_to_the_destination_are_followed_inside_the_root(trees: Trees) -> None:
    (trees.base / "n").mkdir()
    (trees.base / "n/l").symlink_to("../../../../../../n2")
    (trees.base / "n/b.txt").symlink_to("/etc/group")
    assert await trees.copy("/d/b.txt", to="/n/l/") == ["n2 755 0:0", "n2/b.txt 640 0:0"]
    assert await trees.copy("/d/b.txt", to="/n/l") == ["n2 640 0:0"]
    await trees.copy("/d", to="/n")
    assert (trees.layer / "n/b.txt").read_text() == "b.txt", "a link in the way is replaced, not written through"
    assert not (trees.layer / "etc/group").exists()


async def test_what_cannot_be_is_refused_in_buildkits_words(trees: Trees) -> None:
    (trees.base / "n/a.txt").mkdir(parents=True)
    (trees.base / "f").write_text("")
    for paths, to, words in (
        (("/d",), "/n", "cannot replace to directory /n/a.txt with file"),
        (("/d",), "/f", "cannot copy to non-directory: /f"),
        (("/d/b.txt",), "/f/x", "mkdir /f: not a directory"),
    ):
        with pytest.raises(FileStepFailed, match=words):
            await trees.copy(*paths, to=to)
    for missing in ("/nosuch", "/out", "/d/b.txt/x"):
        with pytest.raises(MissingSource, match=f'failed to calculate checksum of ref.*: "{missing}": not found'):
            await digest_tree([trees.context], [Selection(missing)])


async def test_a_tar_is_unpacked_however_it_is_compressed_and_what_is_none_is_copied(trees: Trees) -> None:
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as archive:
        archive.add(trees.context / "d", ".")
    plain = tar.getvalue()
    (trees.context / "t.tar").write_bytes(plain)
    for name, program in (("t.tgz", "gzip"), ("t.tbz", "bzip2"), ("t.txz", "xz"), ("t.tzst", "zstd")):
        if shutil.which(program):
            packed = subprocess.run([program, "-c"], input=plain, capture_output=True, check=True).stdout
            (trees.context / name).write_bytes(packed)
    for path in sorted(trees.context.glob("t.*")):
        found = await trees.copy(f"/{path.name}", to="/n/x", unpack=True, user="alice", mode="600")
        assert found == ["n 755 1000:1001", "n/x 755 1000:1001", *below("n/x", *ALL, owner="1000:1001")]
    for name, content in (("not.tar", b"text"), ("empty.tar", b""), ("cut.tgz", b"\x1f\x8b\x08\0")):
        (trees.context / name).write_bytes(content)
        assert (await trees.copy(f"/{name}", to="/n/", unpack=True))[-1] == f"n/{name} 644 0:0"
    assert (await trees.copy("/t.tar", to="/n/"))[-1] == "n/t.tar 644 0:0", "COPY unpacks nothing"


async def test_folders_and_files_are_made_and_removed(trees: Trees) -> None:
    text = b"line\n\xff\0" * 100_000
    await trees.apply(
        Mkdir(path="/w/x", user="alice"),
        Mkfile(path="/w/EOF", data=text, mode=0o600, created_ns=OLD * 10**9),
        Remove(path="/etc/gr*", wildcard=True),
    )
    assert trees.shown() == [
        *("etc 755 0:0", "etc/group 0 0:0", "w 755 1000:1001", "w/EOF 600 0:0", "w/x 755 1000:1001"),
    ]
    assert (trees.layer / "w/EOF").read_bytes() == text and (trees.layer / "w/EOF").stat().st_mtime == OLD
    with pytest.raises(FileStepFailed, match="mkdir /etc/passwd: not a directory"):
        await trees.apply(Mkdir(path="/etc/passwd"))
    with pytest.raises(FileStepFailed, match="not a directory"):
        await trees.apply(Mkdir(path="/etc/passwd/x"))


async def test_a_hostile_tree_leads_nowhere_and_a_hole_costs_nothing(trees: Trees, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("of the host")
    nasty = trees.context / "nasty"
    nasty.mkdir()
    (nasty / "up").symlink_to("../../../../../../../.." + str(tmp_path / "secret"))
    (nasty / "loop").symlink_to("loop")
    with (nasty / "hole").open("wb") as file:
        file.truncate(1 << 40)
    os.mknod(nasty / "disk", stat.S_IFBLK | 0o666, os.makedev(8, 0))
    for path in ("/nasty/up", "/nasty/loop"):
        with pytest.raises(FileStepFailed):
            await trees.copy(path, to="/n/")
    (nasty / "loop").unlink()
    await trees.copy("/nasty", to="/n")
    hole = (trees.layer / "n/hole").stat()
    assert hole.st_size == 1 << 40 and hole.st_blocks < 100
    assert "secret" in str((trees.layer / "n/up").readlink()), "a link below a source stays the link it is"
    trees.base.joinpath("esc").symlink_to(tmp_path)
    await trees.copy("/d/b.txt", to="/esc/secret")
    assert (tmp_path / "secret").read_text() == "of the host"


# --- digests ----------------------------------------------------------------------------------------------------------


async def test_a_digest_changes_with_what_a_copy_would_make_and_with_nothing_else(trees: Trees) -> None:
    async def digest(**words: Any) -> str:
        copy = Copy(source=SOURCE, paths=(words.pop("path", "/d"),), destination="/n", **words)
        return await digest_tree([trees.context], select(copy))

    d = trees.context / "d"
    whole, excluding, texts = await digest(), await digest(exclude=("sub",)), await digest(path="/d/*.txt")
    assert len({whole, excluding, texts}) == 3
    os.utime(d / "b.txt", (1, 1))
    (trees.context / "beside").write_text("x")
    assert whole == await digest(), "neither times nor what is beside it count"
    (d / "sub/s.txt").write_text("changed")
    assert whole != await digest() and (excluding, texts) == (
        await digest(exclude=("sub",)),
        await digest(path="/d/*.txt"),
    )
    for change in (
        lambda: (d / "b.txt").chmod(0o600),
        lambda: os.chown(d / "b.txt", 5, 5),
        lambda: os.setxattr(d / "b.txt", "user.note", b"other"),
        lambda: (d / "b.txt").write_text("b.tx!"),
        lambda: (d / "b.txt").rename(d / "c.txt"),
    ):
        before = await digest()
        change()
        assert before != await digest()
    assert await digest() == await digest(path="/ldd"), "a link that is named stands for what it leads to"


async def test_what_was_hashed_before_is_hashed_again_when_it_was_touched(trees: Trees) -> None:
    large = trees.context / "d/a.txt"
    large.write_bytes(bytes(8192))
    while time.time_ns() < large.stat().st_ctime_ns + 200_000_000:  # what is so young is not remembered
        await asyncio.sleep(0.05)

    async def digest() -> str:
        return await digest_tree([trees.context], [Selection("/d")])

    before = await digest()
    assert await digest() == before
    with large.open("r+b") as file:
        file.write(b"x")
    os.utime(large, (OLD, OLD))
    assert await digest() != before, "of the same size, and with whatever time its author likes"


async def test_layers_are_digested_as_what_they_show(trees: Trees) -> None:
    (trees.into / "d").mkdir()
    os.mknod(trees.into / "d/b.txt", stat.S_IFCHR, 0)
    hidden = await digest_tree([trees.into, trees.context], [Selection("/d/*.txt", wildcards=True)])
    (trees.context / "d/b.txt").unlink()
    assert hidden == await digest_tree([trees.context], [Selection("/d/*.txt", wildcards=True)])
    assert await digest_tree([], [Selection()]) == await digest_tree([], [Selection()])


# --- sent trees -------------------------------------------------------------------------------------------------------


async def test_a_tree_is_sent_with_its_entries_in_order_and_the_bytes_that_are_asked_for(trees: Trees) -> None:
    big = os.urandom(3 << 20)
    (trees.context / "d/b.txt").write_bytes(big)
    async with send_tree([trees.context]) as tree:
        entries = [entry async for entry in tree.entries()]
        texts = [b"".join([piece async for piece in tree.read(path)]) for path in (b"d/b.txt", b"d/sub/s.txt")]
    assert texts == [big, b"sub/s.txt"]
    by_path = {entry.path: entry for entry in entries}
    assert list(by_path)[:6] == [b"d", b"d/a.txt", b"d/b.txt", b"d/hard", b"d/l", b"d/pipe"]
    assert by_path[b"d"].mode == 1 << 31 | 0o755 and by_path[b"d/a.txt"].mode == 1 << 23 | 0o755
    assert by_path[b"d/l"].mode == 1 << 27 | 0o777 and by_path[b"d/l"].link == b"a.txt"
    assert by_path[b"d/hard"].link == b"d/a.txt" and by_path[b"d/hard"].size == 0
    assert by_path[b"d/b.txt"].size == len(big) and by_path[b"d/b.txt"].attributes == {"user.note": b"kept"}


async def test_a_tree_is_packed_as_a_tar(trees: Trees) -> None:
    packed = b"".join([piece async for piece in tar_tree([trees.context])])
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        assert "d/sub/deep/p.txt" in archive.getnames() and archive.getmember("d/hard").islnk()


async def test_who_stops_reading_a_tree_ends_its_sending(trees: Trees) -> None:
    (trees.context / "large").write_bytes(bytes(16 << 20))
    async with asyncio.timeout(20):
        async with send_tree([trees.context]) as tree:
            async for _ in tree.entries():
                pass
            async for _ in tree.read(b"large"):
                break
