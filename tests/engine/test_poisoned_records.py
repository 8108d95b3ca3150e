"""A stored record that makes no sense: bennud listens, says which and why, and everything else works."""

import json
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest
from test_state_lost import repair

from support import images
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
    images.import_base(daemon.docker, "busybox")
    docker = daemon.docker
    docker("network", "create", "net")
    docker("volume", "create", "vol")
    docker("run", "--rm", "busybox", "true")
    docker("run", "-d", "--name=lives", "busybox", "sleep", "600")
    docker(
        "run", "-d", "--name=other", "--network=net", "-v", "vol:/v", "busybox", "sh", "-c", "echo 1 >/v/x; sleep 600"
    )
    daemon.stop()
    yield daemon


def test_a_record_of_each_kind_is_set_aside_and_told_and_the_rest_works(living: Daemon) -> None:
    records = Records(living)
    living.start()
    other = living.docker("inspect", "-f", "{{.Id}}", "other").line
    net = living.docker("network", "inspect", "-f", "{{.Id}}", "net").line
    living.stop()
    poisoned = [f"containers/{other}", f"networks/{net}", "volumes/vol", records.keys("events/")[0]]
    poisoned += [*records.keys("deaths/")[:1], *records.keys("images/records/")[:1]]
    before = {key: records.read(key) for key in poisoned}
    for key in poisoned:
        records.write(key, GARBAGE)
    living.start()
    assert living.docker("ps", "--format", "{{.Names}}").lines == ["lives"]
    living.docker("exec", "lives", "true")
    living.docker("events", "--since=1h", "--until=0s")
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
    assert sorted(living.docker("ps", "--format", "{{.Names}}").lines) == ["lives", "other"]
    assert living.docker("exec", "other", "cat", "/v/x").line == "1"
    living.docker("exec", "other", "ping", "-c1", "-W2", "lives", ok=False)
    assert json.loads(living.request("GET", "/info")[1])["Warnings"] is None
    living.docker("run", "--rm", "busybox", "true")


def test_what_a_container_has_is_its_own_while_its_record_is_set_aside(living: Daemon) -> None:
    records, bennu = Records(living), living.bennu
    living.start()
    bennu("rm", "-f", "lives")
    other = bennu("inspect", "-f", "{{.Id}}", "other").line
    address = bennu("exec", "other", "hostname", "-i").line
    living.stop()
    key = f"containers/{other}"
    before = records.read(key)
    records.write(key, before.replace(b'"life":1', b'"life":"of another version"'))
    living.start()
    assert bennu("ps", "-a", "--format", "{{.Names}}").lines == []
    for refused in (["volume", "rm", "vol"], ["rmi", "busybox"], ["create", "--name=other", "busybox"]):
        assert other[:12] in bennu(*refused, ok=False).err
    assert bennu("run", "--rm", "--network=net", "busybox", "hostname", "-i").line != address
    living.stop()
    assert repair(living) == "Nothing was missing.\n"
    (living.data_root / "state.db").unlink()
    assert other[:12] not in repair(living)
    assert records.keys("set-aside/") == [f"set-aside/{key}"]
    records.write(f"set-aside/{key}", before)
    living.start()
    assert bennu("ps", "--format", "{{.Names}}").lines == ["other"]
    assert bennu("exec", "other", "cat", "/v/x").line == "1"


def test_repair_passes_over_a_record_that_cannot_be_read(living: Daemon) -> None:
    records = Records(living)
    for key in records.keys("containers/")[:1]:
        records.write(key, GARBAGE)
    assert repair(living) == "Nothing was missing.\n"


@pytest.fixture
def swarm(able: None) -> Iterator[SwarmNode]:
    """Two services that run, `good` and `bad`; a secret and a config."""
    with open_swarm("busybox") as node:
        for kind in ("secret", "config"):
            node.docker(kind, "create", kind, "-", stdin="words")
        for name in ("good", "bad"):
            node.create(name, "--constraint", "node.role==manager", "busybox", "sleep", "600")
            node.wait_running(name, 1)
        yield node


def ids(swarm: SwarmNode) -> list[str]:
    return sorted(swarm.docker("ps", "-q").lines)


def test_what_is_wrong_with_one_row_of_the_swarm_is_that_rows_alone(swarm: SwarmNode) -> None:
    daemon, records, running = swarm.daemon, Records(swarm.daemon), ids(swarm)
    bad, task = swarm.docker("service", "inspect", "-f", "{{.ID}}", "bad").line, swarm.tasks("good")[0]["ID"]
    daemon.stop()
    poisoned = [f"cluster/services/{bad}", *records.keys("cluster/nodes/")]
    poisoned += [*records.keys("cluster/secrets/"), *records.keys("cluster/configs/")]
    for key in poisoned:
        records.write(key, GARBAGE)
    daemon.start()
    assert swarm.docker("service", "ls", "--format", "{{.Name}} {{.Replicas}}").lines == ["good 1/1"]
    assert [one["ID"] for one in swarm.running("good")] == [task]
    assert swarm.docker("node", "ls", "--format", "{{.Status}}").line == "Ready"
    swarm.docker("service", "scale", "-d", "good=2")
    swarm.wait_running("good", 2)
    assert set(running) < set(ids(swarm)), "the containers of what cannot be read live on"
    told = daemon.bennu("doctor", ok=False).out
    assert all(f"the record {key} is set aside" in told for key in poisoned), told
    assert swarm.docker("secret", "create", "another", "-", stdin="x").line


def test_a_swarm_that_cannot_be_read_keeps_its_containers_and_can_be_left(swarm: SwarmNode) -> None:
    daemon, records, running = swarm.daemon, Records(swarm.daemon), ids(swarm)
    daemon.stop()
    (key,) = records.keys("cluster/swarm/")
    whole = records.read(key)
    records.write(key, GARBAGE)
    daemon.start()
    assert ids(swarm) == running
    refused = swarm.docker("swarm", "init", "--advertise-addr=127.0.0.1", ok=False)
    assert key in refused.err
    daemon.stop()
    records.write(f"set-aside/{key}", whole)
    daemon.start()
    swarm.wait_running("bad", 1)
    assert ids(swarm) == running
    daemon.stop()
    records.write(key, GARBAGE)
    daemon.start()
    swarm.docker("swarm", "leave", "--force")
    wait_for(lambda: not ids(swarm), what="the containers to be gone")
    swarm.docker("swarm", "init", "--advertise-addr=127.0.0.1")
    assert swarm.docker("service", "ls", "-q").lines == []


def test_a_stored_wish_for_more_than_anybody_can_have_is_kept_within_bounds(swarm: SwarmNode) -> None:
    daemon, records = swarm.daemon, Records(swarm.daemon)
    swarm.docker("service", "scale", "-d", "bad=2")
    swarm.wait_running("bad", 2)
    bad = swarm.docker("service", "inspect", "-f", "{{.ID}}", "bad").line
    daemon.stop()
    key = f"cluster/services/{bad}"
    text = records.read(key).replace(b"node.role==manager", b"node.role==worker")
    assert b'"replicas":2' in text
    records.write(key, text.replace(b'"replicas":2', b'"replicas":1099511627776'))
    began = time.monotonic()
    daemon.start()
    assert time.monotonic() - began < 10
    wait_for(lambda: "1099511627776 tasks are asked for" in daemon.bennu("why", "bad").out, timeout_s=90, what="words")
    assert len(swarm.tasks("bad")) <= 10_010
    swarm.docker("service", "rm", "bad")
    assert swarm.docker("service", "ls", "--format", "{{.Name}}").lines == ["good"]
