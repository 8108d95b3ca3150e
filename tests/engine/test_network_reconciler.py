"""What somebody else takes from the network of a running container is back within seconds, without a restart."""

import contextlib
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from network_helpers import exchange, needs_network
from network_world import World, open_world

from bennu.network.reconciler import RECONCILE_EVERY_S
from support import images, traces
from support.daemon import Daemon
from support.waiting import wait_for

pytestmark = [needs_network, pytest.mark.slow]
BACK_S = RECONCILE_EVERY_S + 3.0  # on a busy machine


@dataclass(frozen=True)
class Place:
    """A running container on its network."""

    daemon: Daemon
    world: World
    bridge: str
    address: str

    @property
    def pid(self) -> int:
        return int(self.daemon.docker("inspect", "-f", "{{.State.Pid}}", "one").line)

    @property
    def lives_in(self) -> int:
        """The number of its namespace."""
        return Path(f"/proc/{self.pid}/ns/net").stat().st_ino

    @property
    def file(self) -> Path:
        """Of its namespace; the daemon makes others ahead."""
        number = self.lives_in
        return next(path for path in (self.daemon.exec_root / "netns").iterdir() if path.stat().st_ino == number)

    @property
    def pair(self) -> str:
        """The host's end of its pair."""
        shown = self.world.at("ip", "-o", "link", "show", "master", self.bridge, "type", "veth")
        return shown.split(":")[1].split("@")[0].strip()

    def is_reached(self) -> bool:
        try:
            return bool(exchange(self.world.host, self.address, 7))
        except OSError:
            return False

    @contextlib.contextmanager
    def looking_away(self) -> Iterator[None]:
        """The daemon does nothing meanwhile."""
        os.kill(self.daemon.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self.daemon.pid, signal.SIGCONT)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with open_world(tmp_path_factory.mktemp("world")) as world, contextlib.ExitStack() as undo:
        daemon = Daemon(program=world.program)
        undo.callback(traces.discard, daemon)
        cli, busybox = daemon.start().docker, images.import_base(daemon.docker, "busybox")
        network = cli("network", "create", "net").line
        echo = ("nc", "-ll", "-p", "7", "-e", "hostname")
        cli("run", "-d", "--name=one", "--restart=always", "--network=net", busybox, *echo)
        found = Place(daemon, world, f"br-{network[:12]}", cli("exec", "one", "hostname", "-i").line)
        wait_for(found.is_reached, what="the container")
        yield found


WRONGS: dict[str, Callable[[Place], tuple[str, ...]]] = {
    "the bridge is down": lambda place: ("ip", "link", "set", place.bridge, "down"),
    "the bridge has no address": lambda place: ("ip", "addr", "flush", "dev", place.bridge),
    "the bridge is gone": lambda place: ("ip", "link", "del", place.bridge),
    "the pair is gone": lambda place: ("ip", "link", "del", place.pair),
    "the pair is down": lambda place: ("ip", "link", "set", place.pair, "down"),
    "the pair is out of its bridge": lambda place: ("ip", "link", "set", place.pair, "nomaster"),
}


@pytest.mark.parametrize("wrong", WRONGS)
def test_a_container_is_reached_again_within_seconds_when(place: Place, wrong: str) -> None:
    pid = place.pid
    with place.looking_away():
        place.world.at(*WRONGS[wrong](place))
        assert not place.is_reached(), "it does no harm"
    wait_for(place.is_reached, timeout_s=BACK_S, what="the container to be reached again", describe=place.daemon.log)
    assert place.daemon.docker("exec", "one", "nslookup", "one").out
    assert place.pid == pid


def test_a_namespaces_file_that_was_deleted_is_there_again_and_the_next_process_starts_in_it(place: Place) -> None:
    path, namespace, pid = place.file, place.lives_in, place.pid
    subprocess.run(["umount", path], check=True)
    path.unlink()
    wait_for(lambda: path.exists() and path.stat().st_ino == namespace, timeout_s=BACK_S, what="the file")
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: place.pid not in (0, pid), what="the policy to restart the container", describe=place.daemon.log)
    wait_for(place.is_reached, what="the restarted container", describe=place.daemon.log)
    assert place.lives_in == namespace


def test_all_of_it_at_once_is_put_right(place: Place) -> None:
    path, namespace, pair = place.file, place.lives_in, place.pair
    with place.looking_away():
        subprocess.run(["umount", path], check=True)
        path.unlink()
        place.world.at("sh", "-c", f"ip link del {pair}; ip link del {place.bridge}; nft flush ruleset")
        assert not place.is_reached()
    wait_for(place.is_reached, timeout_s=BACK_S + RECONCILE_EVERY_S, what="the container", describe=place.daemon.log)
    assert place.lives_in == namespace == path.stat().st_ino


def test_a_network_in_use_gives_no_cause_to_put_anything_right(place: Place) -> None:
    """Containers come and go, are connected and disconnected: what we do ourselves is no harm to be mended."""
    cli = place.daemon.docker
    before = len(place.daemon.log())
    cli("network", "create", "other")
    for number in range(4):
        cli("run", "-d", f"--name=more{number}", "--network=net", "busybox", "sleep", "1000")
        cli("network", "connect", "other", f"more{number}")
        cli("network", "disconnect", "net", f"more{number}")
    cli("rm", "-f", *(f"more{number}" for number in range(4)))
    cli("network", "rm", "other")
    time.sleep(RECONCILE_EVERY_S + 0.5)
    assert not re.findall("WARNING.*", place.daemon.log()[before:])
