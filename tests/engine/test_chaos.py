"""Many clients, and the daemon and the monitors of its containers killed under them: what was acknowledged holds, and
once all is removed the machine is as it was."""

import os
import random
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from test_daemon_death import Driver, Expected

from support import census, images
from support.daemon import Daemon
from support.dying import DaemonDied

MakeDaemon = Callable[..., Daemon]
UNKNOWN = "its monitor was killed"


@dataclass
class Client(Driver):
    """As a driver, with more verbs; when the daemon dies under it, it goes on with the next one."""

    def live_on(self, over: threading.Event) -> None:
        while not over.is_set():
            try:
                self.more() if self.draw.random() < 0.5 else self.step()
            except DaemonDied:
                while not (over.is_set() or self.is_answered()):
                    over.wait(0.05)

    def is_answered(self) -> bool:
        with suppress(DaemonDied):
            return self.ask("GET", "/version")[0] == 200
        return False

    def more(self) -> None:
        there = [one for one in self.containers if one.started and not (one.stopped or one.removed or one.maybe)]
        if there:
            one = self.draw.choice(there)
            self.draw.choice((self.freeze, self.look_inside, self.commit, self.network, self.kill_monitor))(one)

    def freeze(self, one: Expected) -> None:
        for verb in ("pause", "unpause"):
            self.ask("POST", f"/containers/{one.name}/{verb}")

    def look_inside(self, one: Expected) -> None:
        status, made = self.ask("POST", f"/containers/{one.name}/exec", {"Cmd": ["true"], "AttachStdout": True})
        if status == 201:
            self.ask("POST", f"/exec/{made['Id']}/start", {"Detach": True})

    def commit(self, one: Expected) -> None:
        status, made = self.ask("POST", f"/commit?container={one.name}&pause=0", {})
        if status == 201:
            self.ask("DELETE", f"/images/{made['Id']}")

    def network(self, one: Expected) -> None:
        name = f"net-{one.name}"
        self.ask("POST", "/networks/create", {"Name": name})
        self.ask("POST", f"/networks/{name}/connect", {"Container": one.name})
        self.ask("POST", f"/networks/{name}/disconnect", {"Container": one.name, "Force": True})
        self.ask("DELETE", f"/networks/{name}")

    def kill_monitor(self, one: Expected) -> None:
        pid = self.pid_of(one)
        with suppress(OSError):
            parent = int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])
            if "conmon" in Path(f"/proc/{parent}/comm").read_text():
                one.maybe = UNKNOWN
                os.kill(parent, signal.SIGKILL)


def warm(daemon: Daemon) -> census.Census:
    """What is there once everything that is opened once and kept has been opened."""
    images.import_base(daemon.docker, "busybox")
    daemon.docker("run", "--rm", "-p", "80", "busybox", "true")
    time.sleep(1)
    return census.take(daemon)


def remove_all(clients: list[Client]) -> set[str]:
    client = clients[0]
    ids = {item["Id"] for item in client.ask("GET", "/containers/json?all=1")[1]}
    for one in ids:
        client.expect(client.ask("DELETE", f"/containers/{one}?force=1&v=1"), 204)
    for network in client.ask("GET", "/networks")[1]:
        if network["Name"].startswith("net-"):
            client.expect(client.ask("DELETE", f"/networks/{network['Name']}"), 204)
    for image in client.ask("GET", "/images/json")[1]:
        if not image["RepoTags"]:
            client.expect(client.ask("DELETE", f"/images/{image['Id']}?force=1"), 200)
    return ids


def live_through(daemon: Daemon, seed: int, clients: int, deaths: int) -> None:
    print(f"seed {seed}")
    before = warm(daemon)
    draw, over = random.Random(seed), threading.Event()
    crowd = [Client(daemon, random.Random(f"{seed}/{one}"), count=one * 1000) for one in range(clients)]
    with ThreadPoolExecutor(clients) as pool:
        lives = [pool.submit(client.live_on, over) for client in crowd]
        try:
            for _ in range(deaths):
                time.sleep(draw.uniform(0.5, 1.5))
                daemon.kill()
                daemon.start()
            time.sleep(1)
        finally:
            over.set()
    for life in lives:
        life.result()
    time.sleep(1.5)  # the shorter lives end, back-offs pass
    assert sum(len(client.containers) for client in crowd) >= clients
    for client in crowd:
        client.check()
    assert "Traceback" not in daemon.log(), daemon.log()[-4000:]
    census.assert_the_same(daemon, before, remove_all(crowd))


@pytest.mark.timeout(240)
def test_kills_under_load_lose_nothing_and_leave_nothing(make_daemon: MakeDaemon) -> None:
    live_through(make_daemon(), seed=20261130, clients=3, deaths=3)


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_many_kills_under_much_load_lose_nothing_and_leave_nothing(make_daemon: MakeDaemon) -> None:
    for _ in range(4):
        live_through(make_daemon(), seed=random.randrange(10**6), clients=6, deaths=30)
