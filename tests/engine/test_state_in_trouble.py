"""The state is damaged, from the future, or cannot be written: bennud says so, and no container pays for it."""

import os
import shutil
import sqlite3
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from bennu.kernel.procfs import is_alive
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
    images.import_base(daemon.docker, "busybox")
    daemon.docker("run", "-d", "--name=lives", "busybox", "sleep", "600")
    daemon.stop()
    yield daemon


@pytest.mark.parametrize("where", [0, 4096 * 2], ids=["head", "middle"])
def test_a_damaged_file_is_named_with_what_to_do_and_a_backup_brings_all_back(living: Daemon, where: int) -> None:
    path = living.data_root / "state.db"
    good = path.read_bytes()
    path.write_bytes(good[:where] + b"\xa5" * 8192 + good[where + 8192 :])
    said = refusal(living)
    assert said.startswith("bennud: ") and f"the state in {path}" in said
    assert "bennu doctor --repair" in said and "backup" in said
    path.write_bytes(good)
    living.start()
    living.docker("exec", "lives", "true")


def test_a_record_that_cannot_be_read_is_named_and_its_container_left_alone(living: Daemon) -> None:
    living.start()
    pid = int(living.docker("inspect", "-f", "{{.State.Pid}}", "lives").line)
    living.stop()
    query = "UPDATE kv SET value = CAST(replace(CAST(value AS TEXT), ?, ?) AS BLOB) WHERE key LIKE ?"
    with closing(sqlite3.connect(living.data_root / "state.db")) as db:
        db.execute(query, ('"state":"running"', '"state":"dreaming"', "containers/%"))
        db.commit()
    living.start()
    assert "the record containers/" in living.log() and "dreaming" in living.log()
    assert living.docker("ps", "-aq").lines == []
    os.kill(pid, 0)
    living.stop()
    with closing(sqlite3.connect(living.data_root / "state.db")) as db:
        db.execute(query, ('"state":"dreaming"', '"state":"running"', "set-aside/containers/%"))
        db.commit()
    living.start()
    assert int(living.docker("inspect", "-f", "{{.State.Pid}}", "lives").line) == pid
    living.docker("exec", "lives", "true")


@pytest.fixture
def full(make_daemon: Callable[..., Daemon]) -> Iterator[Daemon]:
    """A daemon whose disk is full to the last byte, with what runs and what does not; `fill` is what fills it."""
    daemon = make_daemon()
    daemon.stop()
    mount_small(daemon.data_root, daemon.root / "disk")
    images.import_base(daemon.start().docker, "busybox")
    docker = daemon.docker
    docker("tag", "busybox", "other")
    for name in ("stops", "killed", "removed", "stays"):
        docker("run", "-d", f"--name={name}", "busybox", "sleep", "600")
    docker("run", "-d", "--name=dies", "--restart=on-failure:1", "busybox", "sh", "-c", "sleep 4; exit 7")
    docker("create", "--name=idle", "busybox")
    fill_up(daemon.data_root / "fill")
    yield daemon


def test_a_full_disk_keeps_nobody_from_stopping_removing_and_restarting_what_there_is(full: Daemon) -> None:
    docker = full.docker
    bennu = full.bennu
    docker("stop", "-t", "0", "stops")
    docker("kill", "killed")
    docker("rm", "-f", "removed")
    refused = docker("create", "busybox", ok=False)
    assert refused.code == 1 and "full" in refused.err
    docker("rmi", "other")
    docker("container", "prune", "-f")
    wait_for(lambda: state(full, "dies") == "exited 7", what="both deaths")
    full.kill()
    full.start()
    assert [line for line in docker("ps", "-a", "--format", "{{.Names}}").lines if line in ("stays", "dies")]
    assert state(full, "stays") == "running 0" and len(bennu("why", "--all", "dies").lines) == 3
    docker("exec", "stays", "true")
    docker("rm", "-f", "stays", "dies")
    docker("image", "prune", "-af")
    assert docker("images", "-q").out == ""


def test_once_there_is_room_again_new_things_are_made_again_and_the_ballast_too(full: Daemon) -> None:
    ballast = full.data_root / "ballast"
    whole = ballast.stat().st_blocks
    full.docker("stop", "-t", "0", "stops")
    assert ballast.stat().st_blocks < whole
    (full.data_root / "fill").unlink()
    wait_for(lambda: ballast.stat().st_blocks == whole, what="the ballast to be made again")
    full.docker("run", "--rm", "busybox", "true")


def test_a_stop_needs_no_word_on_record_and_its_end_is_written_once_there_is_room(full: Daemon) -> None:
    docker, fill = full.docker, full.data_root / "fill"
    os.truncate(full.data_root / "ballast", 0)
    fill_up(fill)
    pid = docker("inspect", "-f", "{{.State.Pid}}", "stops").line
    stopping = threading.Thread(target=lambda: docker("stop", "-t", "0", "stops", ok=False))
    stopping.start()
    wait_for(lambda: not is_alive(int(pid)), what="the process to end")
    wait_for(lambda: "trying again" in full.log(), what="the end to be tried")
    fill.unlink()
    wait_for(lambda: state(full, "stops") == "exited 137", what="the end on record")
    stopping.join()
    assert "was stopped" in full.bennu("why", "stops").out


def state(daemon: Daemon, name: str) -> str:
    return daemon.docker("inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", name).line


def mount_small(place: Path, disk: Path) -> None:
    """A file system of its own: ext4 with its journal where the host lends a loop device, else tmpfs."""
    disk.touch()
    os.truncate(disk, 96 << 20)
    for command in (["mkfs.ext4", "-q", disk], ["mount", "-o", "loop", disk, place]):
        if shutil.which(str(command[0])) is None or subprocess.run(command, check=False).returncode != 0:
            subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "small", place], check=True)
            return


def fill_up(path: Path) -> None:
    with path.open("ab", buffering=0) as file:
        try:
            while True:
                file.write(bytes(1024))
        except OSError:
            return
