"""The mark beside the database: what was acknowledged cannot be lost unnoticed."""

import os
import shutil
from pathlib import Path

import pytest

from bennu.errors import Unavailable
from bennu.store import Put, Transaction, judge, mark_of, open_sqlite, read_what_is_left
from support.killed_writer import kill_writer


@pytest.fixture
def killed(tmp_path: Path) -> Path:
    return kill_writer(tmp_path / "state.db")


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


def test_what_is_no_database_is_named_so(tmp_path: Path) -> None:
    (tmp_path / "state.db").write_bytes(os.urandom(10_000))
    assert "not a database" in judge(tmp_path / "state.db")
