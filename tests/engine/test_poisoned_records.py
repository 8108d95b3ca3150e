"""A stored record that makes no sense: bennud listens, says which and why, and everything else works."""

import json
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest

from support import images, traces
from support.daemon import Daemon
from support.swarm import SwarmNode, open_swarm
from support.waiting import wait_for

GARBAGE = b'{"id": 7, "from": ["another world"'


class Records:
    """The stored records of a daemon that does not run."""

    def __init__(self, daemon: Daemon) -> None:
        self._path = daemon.data_root / "state.db"

    def keys(self, prefix: str) -> list[str]:
        with closing(sqlite3.connect(self._path)) as db:
            found = db.execute("SELECT key FROM kv WHERE key LIKE ? ORDER BY key", (prefix + "%",))
            return [row[0] for row in found]

    def read(self, key: str) -> bytes:
        with closing(sqlite3.connect(self._path)) as db:
            value = db.execute("SELECT value FROM kv WHERE key = ?", (key,)).fetchone()[0]
            return value if isinstance(value, bytes) else value.encode()

    def write(self, key: str, value: bytes) -> None:
        with closing(sqlite3.connect(self._path)) as db:
            db.execute("UPDATE kv SET value = ? WHERE key = ?", (value, key))
            db.commit()


@pytest.fixture
def living(make_daemon: Callable[..., Daemon]) -> Iterator[Daemon]:
    """A stopped daemon with what there can be: two containers that run, a network, a volume, events, deaths."""
    daemon = make_daemon()
    images.import_base(daemon.bennu, "busybox")
    bennu = daemon.bennu
    bennu("network", "create", "net")
    bennu("volume", "create", "vol")
    bennu("run", "--rm", "busybox", "true")
    bennu("run", "-d", "--name=lives", "busybox", "sleep", "600")
    bennu("run", "-d", "--name=other", "--network=net", "-v", "vol:/v", "busybox", "sh", "-c", "echo 1 >/v/x; sleep 600")
    daemon.stop()
    yield daemon


def test_a_record_of_each_kind_is_set_aside_and_told_and_the_rest_works(living: Daemon) -> None:
    records = Records(living)
    living.start()
    other = living.bennu("inspect", "-f", "{{.Id}}", "other").line
    net = living.bennu("network", "inspect", "-f", "{{.Id}}", "net").line
    living.stop()
    poisoned = [f"containers/{other}", f"networks/{net}", "volumes/vol", records.keys("events/")[0]]
    poisoned += [*records.keys("deaths/")[:1], *records.keys("images/records/")[:1]]
    before = {key: records.read(key) for key in poisoned}
    for key in poisoned:
        records.write(key, GARBAGE)
    living.start()
    assert living.bennu("ps", "--format", "{{.Names}}").lines == ["lives"]
    living.bennu("exec", "lives", "true")
    living.bennu("events", "--since=1h", "--until=0s")
    told = living.bennu("doctor", ok=False).out + "\n".join(json.loads(living.request("GET", "/info")[1])["Warnings"])
    for key in poisoned:
        if not key.startswith("deaths/"):
            assert told.count(f"the record {key} is set aside") == 2, (key, told)
    living.stop()
    for key in poisoned:
        if not key.startswith("deaths/"):
            assert records.read(f"set-aside/{key}") == GARBAGE
            records.write(f"set-aside/{key}", before[key])
    living.start()
    assert sorted(living.bennu("ps", "--format", "{{.Names}}").lines) == ["lives", "other"]
    assert living.bennu("exec", "other", "cat", "/v/x").line == "1"
    living.bennu("exec", "other", "ping", "-c1", "-W2", "lives", ok=False)
    assert json.loads(living.request("GET", "/info")[1])["Warnings"] is None
    living.bennu("run", "--rm", "busybox", "true")
