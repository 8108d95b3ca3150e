"""The state is lost, in part or whole: bennud refuses in words and touches nothing; all of it comes back."""

import json
import os
import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from test_state_in_trouble import refusal

from support import images
from support.daemon import Daemon
from support.waiting import wait_for

SMALL = 4096


@dataclass
class Host:
    """A bennud that was killed, with all kinds of things on record and a container that runs."""

    daemon: Daemon
    pid: str  # of the running container's first process
    address: str  # of that container
    backup: bytes  # an older state.db

    @property
    def database(self) -> Path:
        return self.daemon.data_root / "state.db"

    @property
    def log(self) -> Path:
        return self.daemon.data_root / "state.db-wal"


def repair(daemon: Daemon) -> str:
    roots = ("--data-root", daemon.data_root, "--exec-root", daemon.exec_root)
    return daemon.bennu("doctor", "--repair", *roots).out


@pytest.fixture
def host(make_daemon: Callable[..., Daemon]) -> Iterator[Host]:
    daemon = make_daemon()
    images.import_base(daemon.docker, "busybox")
    daemon.stop()
    backup = (daemon.data_root / "state.db").read_bytes()
    docker = daemon.start().docker
    docker("tag", "busybox", "registry.test:5000/team/tool:2")
    docker("network", "create", "lan")
    docker("volume", "create", "--label=a=b", "files")
    docker(
        "run", "-d", "--name=lives", "--network=lan", "-v", "files:/v", "busybox", "sh", "-c", "echo said; sleep 600"
    )
    docker("run", "--name=ended", "busybox", "sh", "-c", "echo kept >/file; exit 7", ok=False)
    docker("create", "--name=fresh", "--label=is=new", "busybox", "sleep", "600")
    pid = docker("inspect", "-f", "{{.State.Pid}}", "lives").line
    address = docker("exec", "lives", "hostname", "-i").line
    wait_for(
        lambda: '"exited"' in record_of(daemon, "ended") and record_of(daemon, "fresh"), what="the copies to follow"
    )
    daemon.kill()
    yield Host(daemon, pid, address, backup)


def record_of(daemon: Daemon, name: str) -> str:
    texts = (path.read_text() for path in daemon.data_root.glob("containers/*/record.json"))
    return next((text for text in texts if json.loads(text)["name"] == name), "")


def remove(path: Path) -> None:
    path.unlink()


def empty(path: Path) -> None:
    path.write_bytes(b"")


def make_noise(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        file.write(random.Random(1).randbytes(SMALL))


def cut_in_half(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def put_older(host: Host) -> None:
    host.log.unlink()
    host.database.write_bytes(host.backup)


def remove_all(host: Host) -> None:
    host.database.unlink()
    host.database.with_suffix(".mark").unlink()


DAMAGES: dict[str, Callable[[Host], None]] = {
    "the log is removed": lambda host: remove(host.log),
    "noise in the middle of the log": lambda host: make_noise(host.log),
    "the log is cut in half": lambda host: cut_in_half(host.log),
    "the database is missing": lambda host: remove(host.database),
    "the database and its mark are missing": remove_all,
    "the database is empty": lambda host: empty(host.database),
    "noise all over the database": lambda host: host.database.write_bytes(random.Random(1).randbytes(SMALL * 8)),
    "the database is cut in half": lambda host: cut_in_half(host.database),
    "the database is of an older backup": put_older,
}
QUICK = ("the log is cut in half", "the database and its mark are missing")


def test_every_kind_of_damage_is_refused_in_words_and_nothing_is_touched(host: Host) -> None:
    daemon = host.daemon
    files = [host.database, host.log, host.database.with_suffix(".mark")]
    sound = {path: path.read_bytes() for path in files}
    folders = sorted(daemon.data_root.glob("containers/*/*")) + sorted(daemon.data_root.glob("images/*/*"))
    for name, damage in DAMAGES.items():
        damage(host)
        damaged = {path: path.read_bytes() for path in files if path.exists()}
        said = refusal(daemon)
        assert "doctor --repair" in said and str(daemon.data_root) in said, name
        assert {path: path.read_bytes() for path in damaged} == damaged, name
        assert Path(f"/proc/{host.pid}").exists(), name
        for path, data in sound.items():
            path.write_bytes(data)
    assert folders == sorted(daemon.data_root.glob("containers/*/*")) + sorted(daemon.data_root.glob("images/*/*"))
    daemon.start()
    daemon.docker("exec", "lives", "true")


@pytest.mark.parametrize(
    "damage", [name if name in QUICK else pytest.param(name, marks=pytest.mark.soak) for name in DAMAGES]
)
def test_after_any_damage_repair_brings_back_all_that_was_acknowledged(host: Host, damage: str) -> None:
    daemon = host.daemon
    DAMAGES[damage](host)
    told = repair(daemon)
    assert "lives, which runs" in told and "Brought back container ended" in told
    daemon.start()
    check_all_is_there(host)
    assert "bennu.engine.orphans" not in daemon.log()
    daemon.stop()
    assert repair(daemon) == "Nothing was missing.\n"


def check_all_is_there(host: Host) -> None:
    docker = host.daemon.docker
    assert docker("inspect", "-f", "{{.State.Pid}} {{.State.Status}}", "lives").line == f"{host.pid} running"
    assert docker("exec", "lives", "hostname", "-i").line == host.address
    assert docker("logs", "lives").line == "said"
    assert docker("inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", "ended").line == "exited 7"
    docker("start", "ended")
    assert docker("cp", "ended:/file", "-").out.find("kept") > 0
    docker("start", "fresh")
    assert docker("inspect", "-f", "{{.Config.Labels.is}}", "fresh").line == "new"
    assert docker("volume", "inspect", "-f", "{{.Labels.a}}", "files").line == "b"
    docker("run", "--rm", "--network=lan", "registry.test:5000/team/tool:2", "true")
    docker("stop", "-t", "0", "lives")
    docker("start", "lives")


def test_a_data_root_whose_disk_is_not_mounted_costs_no_container(host: Host) -> None:
    daemon = host.daemon
    away = daemon.root / "away"
    daemon.data_root.rename(away)
    said = refusal(daemon)
    assert "mounted?" in said and host.pid in said
    shutil.rmtree(daemon.data_root)
    away.rename(daemon.data_root)
    daemon.start()
    check_all_is_there(host)


def test_a_backup_that_is_wanted_is_taken_and_what_it_does_not_know_is_put_aside(host: Host) -> None:
    daemon, docker = host.daemon, host.daemon.docker
    host.log.unlink()
    host.database.write_bytes(host.backup)
    assert "backup" in refusal(daemon)
    host.database.with_suffix(".mark").unlink()
    daemon.start()
    assert docker("ps", "-aq").out == ""
    assert Path(f"/proc/{host.pid}").exists() and "left as it is" in daemon.log()
    assert len(list((daemon.data_root / "lost/containers").iterdir())) == 2
    assert "lost/containers" in daemon.bennu("doctor", "--data-root", daemon.data_root, ok=False).out
    daemon.stop()
    told = repair(daemon)
    assert "lives, which runs" in told and "Brought back container fresh" in told
    daemon.start()
    check_all_is_there(host)


def test_a_brand_new_data_root_is_taken_without_a_word(make_daemon: Callable[..., Daemon]) -> None:
    daemon = make_daemon()
    assert "state" not in daemon.log() and "lost" not in daemon.log()
    daemon.stop()
    shutil.rmtree(daemon.data_root)
    daemon.start()


def test_repair_does_not_touch_the_state_of_a_bennud_that_runs(make_daemon: Callable[..., Daemon]) -> None:
    daemon = make_daemon()
    roots = ("--data-root", daemon.data_root, "--exec-root", daemon.exec_root)
    done = daemon.bennu("doctor", "--repair", *roots, ok=False)
    assert done.code == 1 and "in use by another bennud" in done.err
