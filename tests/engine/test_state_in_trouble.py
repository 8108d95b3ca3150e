"""The state is damaged, from the future, or cannot be written: bennud says so, and no container pays for it."""

import os
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from support import images
from support.daemon import Daemon
from support.waiting import wait_for


def refusal(daemon: Daemon) -> str:
    """The last line in the log of a bennud that does not start."""
    with pytest.raises(AssertionError, match="ended with 1 instead of starting"):
        daemon.start()
    assert "Traceback" not in daemon.log()
    return daemon.log().splitlines()[-1]


@pytest.fixture
def living(make_daemon: Callable[..., Daemon]) -> Iterator[Daemon]:
    """A daemon with a container `lives`; it is stopped, the container runs."""
    daemon = make_daemon()
    images.import_base(daemon.bennu, "busybox")
    daemon.bennu("run", "-d", "--name=lives", "busybox", "sleep", "600")
    daemon.stop()
    yield daemon


@pytest.mark.parametrize("where", [0, 4096 * 2], ids=["head", "middle"])
def test_a_damaged_file_is_named_with_what_to_do_and_a_backup_brings_all_back(living: Daemon, where: int) -> None:
    path = living.data_root / "state.db"
    good = path.read_bytes()
    path.write_bytes(good[:where] + b"\xa5" * 8192 + good[where + 8192 :])
    said = refusal(living)
    assert said.startswith(f"bennud: cannot read the state in {path}: ")
    assert ".recover" in said and "backup" in said
    path.write_bytes(good)
    living.start()
    living.bennu("exec", "lives", "true")


def test_a_record_that_cannot_be_read_is_named_and_its_container_left_alone(living: Daemon) -> None:
    living.start()
    pid = int(living.bennu("inspect", "-f", "{{.State.Pid}}", "lives").line)
    living.stop()
    query = "UPDATE kv SET value = CAST(replace(CAST(value AS TEXT), ?, ?) AS BLOB) WHERE key LIKE ?"
    with closing(sqlite3.connect(living.data_root / "state.db")) as db:
        db.execute(query, ('"state":"running"', '"state":"dreaming"', "containers/%"))
        db.commit()
    living.start()
    assert "the record containers/" in living.log() and "dreaming" in living.log()
    assert living.bennu("ps", "-aq").lines == []
    os.kill(pid, 0)
    living.stop()
    with closing(sqlite3.connect(living.data_root / "state.db")) as db:
        db.execute(query, ('"state":"dreaming"', '"state":"running"', "set-aside/containers/%"))
        db.commit()
    living.start()
    assert int(living.bennu("inspect", "-f", "{{.State.Pid}}", "lives").line) == pid
    living.bennu("exec", "lives", "true")


def test_a_death_while_the_disk_is_full_is_written_down_once_there_is_room(make_daemon: Callable[..., Daemon]) -> None:
    daemon = make_daemon()
    daemon.stop()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=60m", "small", daemon.data_root], check=True)
    images.import_base(daemon.start().bennu, "busybox")
    bennu, fill = daemon.bennu, daemon.data_root / "fill"
    bennu("run", "-d", "--name=dies", "--restart=on-failure:1", "busybox", "sh", "-c", "sleep 2; exit 7")
    fill_up(fill)
    refused = bennu("stop", "dies", ok=False)
    assert refused.code == 1 and "full" in refused.err
    wait_for(lambda: "cannot write state" in daemon.log().partition("supervisor")[2], what="the end to be tried")
    assert daemon.is_alive
    daemon.kill()
    assert "full" in refusal(daemon)
    fill.unlink()
    daemon.start()
    wait_for(lambda: bennu("wait", "dies").line == "7", what="the exit code")
    wait_for(lambda: len(bennu("why", "--all", "dies").lines) == 3, what="both lives, each written once")


def fill_up(path: Path) -> None:
    with path.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(1024))
        except OSError:
            return
