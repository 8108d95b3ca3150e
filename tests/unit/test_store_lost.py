"""The mark beside the database, and the room that is kept for a full disk."""

import asyncio
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bennu.errors import Unavailable
from bennu.store import Delete, Put, Transaction, judge, mark_of, open_sqlite, read_what_is_left
from bennu.store.ballast import PIECE, SIZE, Ballast

WRITER = """
import asyncio, os, signal, sys
from pathlib import Path
from bennu.store import Put, Transaction, open_sqlite
async def main():
    async with open_sqlite(Path(sys.argv[1])) as store:
        for number in range(30):
            await store.commit(Transaction([Put(f"key/{number}", bytes(2000))]))
        os.kill(os.getpid(), signal.SIGKILL)
asyncio.run(main())
"""


@pytest.fixture
def killed(tmp_path: Path) -> Path:
    """A database whose writer was killed right after an acknowledgement: all of it is in the log."""
    path = tmp_path / "state.db"
    done = subprocess.run([sys.executable, "-c", WRITER, path], check=False)
    assert done.returncode == -signal.SIGKILL
    return path


@pytest.mark.parametrize("part", [0.05, 0.5, 0.99])
async def test_not_even_the_last_commit_can_be_lost_from_the_log_unnoticed(killed: Path, part: float) -> None:
    log = killed.with_name("state.db-wal")
    sound = log.read_bytes()
    os.truncate(log, int(len(sound) * part))
    with pytest.raises(Unavailable, match=r"has lost its latest changes: .* 30 was acknowledged.*--repair"):
        async with open_sqlite(killed):
            pass
    log.write_bytes(sound)
    async with open_sqlite(killed) as store:
        assert store.whole and len(await store.read_prefix("key/")) == 30


async def test_a_refused_log_is_kept_as_it_is_and_what_precedes_the_damage_can_be_read(killed: Path) -> None:
    log = killed.with_name("state.db-wal")
    data = bytearray(log.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 4096] = b"\xa5" * 4096
    log.write_bytes(data)
    assert "lost its latest changes" in judge(killed)
    assert log.read_bytes() == data
    assert 0 < len(list(read_what_is_left(killed))) < 30


async def test_the_database_of_another_engine_is_refused(tmp_path: Path) -> None:
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        async with open_sqlite(tmp_path / name / "state.db") as store:
            await store.commit(Transaction([Put("a", b"")]))
    shutil.copy(tmp_path / "other/state.db", tmp_path / "one/state.db")
    assert "another bennud" in judge(tmp_path / "one/state.db")


async def test_a_database_without_a_mark_is_taken_as_it_is_but_not_for_whole(killed: Path) -> None:
    mark_of(killed).unlink()
    async with open_sqlite(killed) as store:
        assert not store.whole
    async with open_sqlite(killed) as store:
        assert store.whole


async def test_a_damaged_mark_is_refused(killed: Path) -> None:
    mark_of(killed).write_bytes(b"")
    assert "state.mark" in judge(killed)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "disk"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=40m", "tmpfs", place], check=True)
    yield place
    subprocess.run(["umount", place], check=True)


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system needs root")


def fill(disk: Path) -> Path:
    path = disk / "fill"
    with path.open("ab", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            return path


@needs_root
async def test_on_a_full_disk_only_what_makes_nothing_new_is_written_until_there_is_room(
    disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bennu.store.sqlite.KEEP_HOUSE_S", 0.05)
    ballast = disk / "ballast"
    async with open_sqlite(disk / "state.db") as store:
        await wait_until(lambda: ballast.exists() and ballast.stat().st_blocks * 512 == SIZE)
        filled = fill(disk)
        for number in range(40):
            await store.commit(Transaction([Put(f"death/{number}", bytes(20_000))]))
        assert 0 < ballast.stat().st_size < SIZE
        with pytest.raises(Unavailable, match=r"disk is full.*Nothing new"):
            await store.commit(Transaction([Put("new", b"")], adds=True))
        await store.commit(Transaction([Delete("death/1")]))
    async with open_sqlite(disk / "state.db") as store:
        assert len(await store.read_prefix("death/")) == 39
        filled.unlink()
        await wait_until(lambda: ballast.stat().st_blocks * 512 == SIZE)
        await store.commit(Transaction([Put("new", b"")], adds=True))


@needs_root
async def test_a_full_disk_can_be_opened_after_a_death(disk: Path, killed: Path) -> None:
    for path in killed.parent.glob("state.*"):
        shutil.copy(path, disk)
    (disk / "state.db-shm").unlink()
    Ballast(disk / "ballast").take_back()
    fill(disk)
    async with open_sqlite(disk / "state.db") as store:
        assert len(await store.read_prefix("key/")) == 30
    assert (disk / "ballast").stat().st_size <= SIZE - PIECE


async def wait_until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.02)


def test_what_is_no_database_is_named_so(tmp_path: Path) -> None:
    (tmp_path / "state.db").write_bytes(os.urandom(10_000))
    assert "not a database" in judge(tmp_path / "state.db")
