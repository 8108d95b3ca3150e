"""A swarm of one node for tests: its daemon, the docker command, and questions about its tasks."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from support import images, traces
from support.cli import Cli
from support.daemon import Daemon
from support.waiting import wait_for

TASKS_TIMEOUT_S = 30.0


@contextmanager
def open_swarm(*bases: str) -> Iterator["SwarmNode"]:
    """A daemon of its own with these base images, in a swarm of one, as long as the block lasts."""
    daemon = Daemon()
    try:
        daemon.start()
        for base in bases:
            images.import_base(daemon.docker, base)
        daemon.docker("swarm", "init", "--advertise-addr=127.0.0.1")
        yield SwarmNode(daemon)
    finally:
        traces.discard(daemon)


@dataclass(slots=True)
class SwarmNode:
    """`docker(...)` as a person types; the rest asks over HTTP."""

    daemon: Daemon

    @property
    def docker(self) -> Cli:
        return self.daemon.docker

    def ask(self, path: str, **filters: list[str]) -> Any:
        query = f"?filters={json.dumps(filters, separators=(',', ':'))}" if filters else ""
        status, body = self.daemon.request("GET", path + query.replace('"', "%22"))
        assert status == 200, f"{path}: {status} {body!r}"
        return json.loads(body)

    def create(self, name: str, *words: str) -> str:
        """A service that nobody waits for; its id."""
        return self.docker("service", "create", "-d", "--name", name, *words).out.strip()

    def tasks(self, service: str) -> list[dict[str, Any]]:
        """Newest first."""
        found: list[dict[str, Any]] = self.ask("/tasks", service=[service])
        return sorted(found, key=lambda task: task["CreatedAt"], reverse=True)

    def running(self, service: str) -> list[dict[str, Any]]:
        """Tasks that run and are meant to."""
        return [
            task
            for task in self.tasks(service)
            if task["Status"]["State"] == "running" and task["DesiredState"] == "running"
        ]

    def wait_running(self, service: str, count: int, timeout_s: float = TASKS_TIMEOUT_S) -> list[dict[str, Any]]:
        wait_for(
            lambda: len(self.running(service)) == count,
            timeout_s=timeout_s,
            what=f"{count} tasks of {service} to run",
            describe=lambda: (
                self.docker("service", "ps", "--no-trunc", service, ok=False).out + self.daemon.log()[-2000:]
            ),
        )
        return self.running(service)

    def wait_task(self, service: str, state: str, timeout_s: float = TASKS_TIMEOUT_S) -> dict[str, Any]:
        """The newest task of the service in this state, once there is one."""

        def find() -> dict[str, Any] | None:
            return next((task for task in self.tasks(service) if task["Status"]["State"] == state), None)

        found = wait_for(
            find,
            timeout_s=timeout_s,
            what=f"a task of {service} to be {state}",
            describe=lambda: self.docker("service", "ps", "--no-trunc", service, ok=False).out,
        )
        assert found is not None
        return found

    def clear(self) -> None:
        """No service, no task, nothing else of the swarm's is left."""
        if ids := self.docker("service", "ls", "-q").lines:
            self.docker("service", "rm", *ids)
        if ids := self.docker("ps", "-q").lines:  # nobody wants to wait for what ignores SIGTERM
            self.docker("kill", *ids, ok=False)
        wait_for(lambda: not self.ask("/tasks"), timeout_s=40, what="the tasks to be gone")
        wait_for(lambda: not self.docker("ps", "-aq").lines, timeout_s=40, what="the containers to be gone")
        for kind in ("secret", "config"):
            if ids := self.docker(kind, "ls", "-q").lines:
                self.docker(kind, "rm", *ids)
        if ids := self.docker("network", "ls", "-q", "--filter", "scope=swarm").lines:
            self.docker("network", "rm", *ids)


def container_of(task: dict[str, Any]) -> str:
    found: str = task["Status"]["ContainerStatus"]["ContainerID"]
    return found
