"""The store on a full disk, and the room that is kept for one. Mounting a small file system needs root."""

import asyncio
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bennu.errors import Unavailable
from bennu.store import Delete, Put, Transaction, open_sqlite
from bennu.store.ballast import PIECE, SIZE, Ballast
from support.killed_writer import kill_writer

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system needs root")


@contextmanager
def mounted(place: Path, size: str) -> Iterator[Path]:
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", place], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", place], check=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with mounted(tmp_path / "disk", "40m") as place:
        yield place


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    with mounted(tmp_path / "tiny", "512k") as place:
        yield place


@pytest.fixture
def killed(tmp_path: Path) -> Path:
    return kill_writer(tmp_path / "state.db")


async def test_a_full_disk_refuses_with_the_reason_and_keeps_the_earlier_state(tiny_disk: Path) -> None:
    async with open_sqlite(tiny_disk / "state.db") as store:
        await store.commit(Transaction([Put("a", b"kept")]))
        with pytest.raises(Unavailable, match=r"cannot write state: .*full"):
            await store.commit(Transaction([Put("b", b"x" * 2_000_000)]))
        entry = await store.read("a")
        assert entry and entry.value == b"kept"
        assert await store.read("b") is None
        await store.commit(Transaction([Put("c", b"small")]))


def fill(disk: Path) -> Path:
    path = disk / "fill"
    with path.open("ab", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            return path


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
