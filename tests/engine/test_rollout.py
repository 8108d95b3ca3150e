"""Every parameter of updates and rollbacks through the docker command, and what `bennu rollout` adds to them."""

import contextlib
import json
import os
import pty
import re
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest

from support.daemon import BENNU, Daemon
from support.swarm import open_swarm
from support.waiting import wait_for

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]
BASE = "busybox:latest"
LIVES = ("sleep", "1000000")
QUICK = ("--update-monitor=300ms", "--rollback-monitor=300ms", "--restart-delay=50ms", "--stop-signal=SIGKILL")
PAUSED = "update paused due to failure or early termination of task "


class Service:
    def __init__(self, daemon: Daemon, name: str, *options: str) -> None:
        self.daemon = daemon
        self.name = name
        daemon.docker("service", "create", "-d", "--no-resolve-image", f"--name={name}", *QUICK, *options, BASE, *LIVES)
        self.replicas = self.inspect()["Spec"]["Mode"]["Replicated"]["Replicas"]
        self.wait(lambda: len(self.running()) == self.replicas, f"{self.replicas} tasks")

    def update(self, *words: str) -> None:
        self.daemon.docker("service", "update", "-d", "--no-resolve-image", *words, self.name)

    def bennu(self, *words: str, ok: bool = True) -> Any:
        return self.daemon.bennu(*words, self.name, ok=ok)

    def rollout(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.bennu("rollout", "status", "--json").out)
        return found

    def rollout_step(self) -> int:
        found = self.rollout()
        return int(found["Step"]) if found["State"] in ("", "updating") else 0

    def inspect(self) -> dict[str, Any]:
        found: list[dict[str, Any]] = json.loads(self.daemon.docker("service", "inspect", self.name).out)
        return found[0]

    @property
    def status(self) -> dict[str, str]:
        found: dict[str, str] = self.inspect().get("UpdateStatus", {})
        return found

    def tasks(self) -> list[dict[str, Any]]:
        query = f'/tasks?filters={{"service":["{self.name}"]}}'
        found: list[dict[str, Any]] = json.loads(self.daemon.request("GET", query)[1])
        return sorted(found, key=lambda task: task["CreatedAt"])

    def running(self, mark: str | None = None) -> list[dict[str, Any]]:
        """Tasks that run, of one version (its `--env V=`) if wanted."""
        return [
            task
            for task in self.tasks()
            if task["Status"]["State"] == task["DesiredState"] == "running" and mark in (None, mark_of(task))
        ]

    def wait(self, condition: Any, what: str, timeout_s: float = 30) -> Any:
        return wait_for(condition, timeout_s=timeout_s, what=what, describe=self.describe)

    def wait_state(self, state: str) -> dict[str, str]:
        self.wait(lambda: self.status.get("State") == state, f"state {state}")
        return self.status

    def describe(self) -> str:
        return f"{self.status}\n{self.daemon.docker('service', 'ps', '--no-trunc', self.name, ok=False).out}"


def mark_of(task: dict[str, Any]) -> str:
    env = task["Spec"]["ContainerSpec"].get("Env") or []
    return next((item.removeprefix("V=") for item in env if item.startswith("V=")), "")


@pytest.fixture(scope="module")
def swarm(able: None) -> Iterator[Daemon]:
    with open_swarm("busybox") as node:
        yield node.daemon


@pytest.fixture
def make(swarm: Daemon) -> Iterator[Any]:
    made: list[Service] = []

    def make_service(*options: str) -> Service:
        made.append(Service(swarm, f"s{len(made)}{time.monotonic_ns() % 10**9}", *options))
        return made[-1]

    yield make_service
    for service in made:
        swarm.docker("service", "rm", service.name, ok=False)


# --- what Docker has -------------------------------------------------------------------------------------------------


def test_an_image_that_is_not_there_pauses_the_update_and_takes_nothing_down(make: Any) -> None:
    web = make("--replicas=2")
    before = {task["ID"] for task in web.running()}
    web.update("--image=127.0.0.1:1/nosuchimage:v9")
    status = web.wait_state("paused")
    assert status["Message"].startswith(PAUSED)
    culprit = status["Message"].removeprefix(PAUSED)
    assert any(task["ID"] == culprit and task["Status"]["State"] == "rejected" for task in web.tasks())
    web.wait(lambda: {task["ID"] for task in web.running()} == before, "the old tasks to be the only ones")


def test_an_image_that_is_not_there_is_rolled_back(make: Any) -> None:
    web = make("--replicas=2", "--update-failure-action=rollback")
    before = {task["ID"] for task in web.running()}
    web.update("--image=127.0.0.1:1/nosuchimage:v9")
    status = web.wait_state("rollback_completed")
    assert status["Message"] == "rollback completed"
    found = web.inspect()
    assert found["Spec"]["TaskTemplate"]["ContainerSpec"]["Image"] == BASE
    assert "PreviousSpec" not in found
    assert {task["ID"] for task in web.running()} == before


def test_a_version_that_dies_within_the_monitor_fails_the_update(make: Any) -> None:
    web = make("--replicas=2", "--update-monitor=3s", "--restart-condition=none")
    web.update("--args=sleep 1")
    assert web.wait_state("paused")["Message"].startswith(PAUSED)


def test_a_version_that_dies_after_the_monitor_does_not(make: Any) -> None:
    web = make("--replicas=1", "--update-monitor=200ms")
    web.update("--args=sleep 3")
    assert web.wait_state("completed")["Message"] == "update completed"


def test_failures_within_the_ratio_are_tolerated(make: Any) -> None:
    web = make("--replicas=4", "--update-parallelism=0", "--update-max-failure-ratio=0.3", "--restart-condition=none")
    # The task of slot 1 dies at once, the others live.
    web.update("--env-add=SLOT={{.Task.Slot}}", "--args=sh -c 'test $SLOT != 1 && sleep 1000000'")
    web.wait_state("completed")
    assert len(web.running()) == 3


def test_more_failures_than_the_ratio_are_not(make: Any) -> None:
    web = make("--replicas=4", "--update-parallelism=0", "--update-max-failure-ratio=0.3", "--restart-condition=none")
    web.update("--env-add=SLOT={{.Task.Slot}}", "--args=sh -c 'test $SLOT -gt 2 && sleep 1000000'")
    web.wait_state("paused")


def test_failures_are_not_looked_at_with_the_action_continue(make: Any) -> None:
    web = make("--replicas=2", "--update-failure-action=continue", "--restart-condition=none")
    web.update("--args=false")
    web.wait_state("completed")
    assert web.running() == []


def test_start_first_never_has_fewer_than_all_replicas(make: Any) -> None:
    web = make("--replicas=2", "--update-order=start-first")
    web.update("--env-add=V=2")
    counts = []
    while web.status.get("State") != "completed":
        counts.append(len(web.running()))
    assert min(counts) >= 2, counts
    assert len(web.running("2")) == 2


def test_parallelism_and_delay_set_the_pace(make: Any) -> None:
    web = make("--replicas=4", "--update-parallelism=2", "--update-delay=2s")
    web.update("--env-add=V=2")
    web.wait_state("completed")
    began = sorted(seconds(task["CreatedAt"]) for task in web.tasks() if mark_of(task) == "2")
    assert len(began) == 4
    assert began[1] - began[0] < 1.5
    assert 2 <= began[2] - began[0] < 6
    status = web.status
    assert seconds(status["CompletedAt"]) - began[3] > 2


def test_parallelism_0_updates_all_at_once(make: Any) -> None:
    web = make("--replicas=4", "--update-parallelism=0", "--update-delay=20s")
    web.update("--env-add=V=2")
    web.wait(lambda: len(web.running("2")) == 4, "all of version 2", timeout_s=15)


def test_the_status_tells_the_story_of_an_update(make: Any) -> None:
    web = make("--replicas=2")
    assert web.status == {}
    web.update("--env-add=V=2")
    web.wait(lambda: web.status, "a status")
    assert (web.status["State"], web.status["Message"]) in (
        ("updating", "update in progress"),
        ("completed", "update completed"),
    )
    done = web.wait_state("completed")
    assert done["StartedAt"] < done["CompletedAt"]
    web.update("--label-add=a=b")
    time.sleep(0.3)
    assert web.status == {}


def test_a_persons_rollback_and_the_one_after_it_change_places(make: Any) -> None:
    web = make("--replicas=1", "--env=V=1")
    web.update("--env-add=V=2")
    web.wait_state("completed")
    for mark in ("1", "2"):
        web.daemon.docker("service", "rollback", "-d", web.name)
        web.wait(lambda mark=mark: len(web.running(mark)) == 1, f"version {mark}")
        assert web.wait_state("rollback_completed")["Message"] == "rollback completed"


def test_a_second_update_during_an_update_wins(make: Any) -> None:
    web = make("--replicas=3", "--update-delay=1s")
    web.update("--env-add=V=2")
    web.wait(lambda: web.running("2"), "the first task of version 2")
    web.update("--env-add=V=3", "--update-delay=0s")
    web.wait_state("completed")
    assert len(web.running("3")) == 3
    assert len(web.running()) == 3


def test_an_update_goes_on_where_the_daemons_death_cut_it_off(make: Any) -> None:
    web = make("--replicas=3", "--update-delay=500ms", "--env=V=1")
    web.update("--env-add=V=2")
    web.wait(lambda: web.running("2"), "the first task of version 2")
    done = {task["ID"] for task in web.running("2")}
    web.daemon.kill()
    web.daemon.start()
    web.wait_state("completed")
    running = web.running("2")
    assert len(running) == 3
    assert done <= {task["ID"] for task in running}
    assert sum(1 for task in web.tasks() if mark_of(task) == "2") == 3


STAY = ("service", "update", "--no-resolve-image")


def test_the_command_stays_until_the_service_has_converged(make: Any, swarm: Daemon) -> None:
    web = make("--replicas=2")
    said = swarm.docker(*STAY, "--env-add=V=2", web.name)
    assert "overall progress: 2 out of 2 tasks" in said.out
    assert said.lines[-1].strip() == f"verify: Service {web.name} converged"
    assert len(web.running("2")) == 2


def test_the_command_fails_when_the_update_is_paused(make: Any, swarm: Daemon) -> None:
    web = make("--replicas=2")
    said = swarm.docker(*STAY, "--args=false", web.name, ok=False)
    assert said.code == 1
    assert "service update paused: update paused due to failure or early termination of task" in said.err + said.out


def test_the_command_ends_well_after_a_rollback_by_itself(make: Any, swarm: Daemon) -> None:
    web = make("--replicas=2", "--update-failure-action=rollback")
    said = swarm.docker(*STAY, "--args=false", web.name)
    assert "rollback: update rolled back due to failure or early termination of task" in said.out
    assert len(web.running()) == 2


def test_the_command_says_that_a_rollback_is_paused(make: Any, swarm: Daemon) -> None:
    web = make("--replicas=1", "--update-failure-action=continue")
    web.update("--args=false")
    web.wait_state("completed")
    web.update("--args=sleep 1000000")
    web.wait_state("completed")
    said = swarm.docker("service", "rollback", web.name, ok=False)  # to what dies at once
    assert said.code == 1
    assert "service rollback paused: update paused due to failure or early termination of task" in said.err + said.out


def test_what_cannot_be_rolled_back_is_refused(make: Any, swarm: Daemon) -> None:
    web = make("--replicas=1")
    said = swarm.docker("service", "rollback", web.name, ok=False)
    assert said.code == 1
    assert "does not have a previous spec" in said.err
    said = swarm.docker("service", "update", "--rollback", "--env-add=V=2", web.name, ok=False)
    assert said.code == 1
    assert "other flags may not be combined with --rollback" in said.err


def test_force_replaces_every_task_and_a_label_none(make: Any, swarm: Daemon) -> None:
    web = make("--replicas=2")
    before = {task["ID"] for task in web.running()}
    swarm.docker(*STAY, "-d", "--force", web.name)
    web.wait_state("completed")
    forced = {task["ID"] for task in web.running()}
    assert len(forced) == 2
    assert not forced & before
    swarm.docker(*STAY, "-d", "--label-add=a=b", web.name)
    assert web.status == {}
    assert {task["ID"] for task in web.running()} == forced


@pytest.mark.parametrize("kind", ["update", "rollback"])
def test_every_flag_of_updates_and_rollbacks_is_kept(make: Any, swarm: Daemon, kind: str) -> None:
    web = make("--replicas=1")
    words = {"parallelism": "3", "delay": "2s", "monitor": "7s", "max-failure-ratio": "0.25"}
    words |= {"failure-action": "continue", "order": "start-first"}
    swarm.docker(*STAY, "-d", *(f"--{kind}-{name}={value}" for name, value in words.items()), web.name)
    assert web.inspect()["Spec"][f"{kind.capitalize()}Config"] == {
        "Parallelism": 3, "Delay": 2 * 10**9, "Monitor": 7 * 10**9, "MaxFailureRatio": 0.25,
        "FailureAction": "continue", "Order": "start-first",
    }  # fmt: skip


# --- what is ours ----------------------------------------------------------------------------------------------------


def test_a_rollout_is_paused_and_resumed(make: Any) -> None:
    web = make("--replicas=3", "--update-delay=500ms")
    web.update("--env-add=V=2")
    web.wait(lambda: web.running("2"), "the first task of version 2")
    web.bennu("rollout", "pause")
    assert web.status["Message"] == "update paused by request"
    time.sleep(1)
    assert len(web.running("2")) < 3
    web.bennu("rollout", "resume")
    web.wait_state("completed")
    assert web.bennu("rollout", "resume", ok=False).code == 1


def test_aborting_goes_back(make: Any) -> None:
    web = make("--replicas=2", "--update-delay=30s", "--env=V=1")
    web.update("--env-add=V=2")
    web.wait(lambda: web.running("2"), "the first task of version 2")
    web.bennu("rollout", "abort")
    web.wait_state("rollback_completed")
    assert len(web.running("1")) == 2


def test_a_canary_watches_each_step_and_then_lets_the_rest_follow(make: Any) -> None:
    web = make("--replicas=4", "--env=V=1")
    web.update(
        "--env-add=V=2", "--label-add=bennu.rollout.strategy=canary", "--label-add=bennu.rollout.steps=1:1s,50%:1s"
    )
    web.wait(lambda: web.rollout_step() == 1, "the first step")
    most = 0
    while web.rollout_step() == 1:
        most = max(most, len(web.running("2")))
    assert most <= 1
    web.wait_state("completed")
    assert len(web.running("2")) == 4
    told = web.bennu("rollout", "status").out
    assert "canary step 1 passed: 1 task of the new version ran for" in told


def test_a_canary_is_promoted_by_a_person(make: Any) -> None:
    web = make("--replicas=3")
    web.daemon.docker("service", "update", "-d", "--label-add=bennu.rollout.strategy=canary", "--env-add=V=2", web.name)
    web.wait(lambda: web.running("2"), "the canary")
    web.wait(lambda: "slots are watched" in web.bennu("rollout", "status").out, "the canary to be watched")
    assert len(web.running("2")) == 1
    web.bennu("rollout", "promote")
    web.wait_state("completed")
    assert len(web.running("2")) == 3


def test_a_canary_that_is_never_ready_goes_back(make: Any) -> None:
    web = make("--replicas=2")
    web.update(
        "--env-add=V=2", "--label-add=bennu.rollout.strategy=canary", "--label-add=bennu.rollout.ready-within=2s",
        "--health-cmd=false", "--health-interval=100ms", "--health-retries=1000",
    )  # fmt: skip
    web.wait_state("rollback_completed")
    assert "0 of 1 slots of the new version were ready within 2 s" in web.bennu("rollout", "status").out


def losses_seen(web: Any) -> int:
    """How often the tasks of a watched service have lost their readiness, as far as it is on record."""
    with contextlib.closing(sqlite3.connect(f"file:{web.daemon.data_root}/state.db?mode=ro", uri=True)) as state:
        rows = state.execute("SELECT value FROM kv WHERE key LIKE 'cluster/sightings/%'").fetchall()
    seen = [one for (value,) in rows for one in json.loads(value)["ledgers"].values()]
    return sum(one.get("readiness_flaps", 0) for one in seen)


def test_a_verdict_counts_what_was_seen_before_the_daemons_death(make: Any) -> None:
    web = make("--replicas=3")
    web.update(
        "--env-add=V=2", "--container-label-add=bennu.ready.cmd=test -e /tmp/ready",
        *(f"--label-add=bennu.rollout.{said}" for said in ("strategy=canary", "watch=10m", "confidence=0.95")),
    )  # fmt: skip
    find = ("ps", "-q", "--filter=label=bennu.ready.cmd")
    container = wait_for(lambda: web.daemon.docker(*find).out.strip(), what="the canary")

    def is_ready() -> bool:
        found = json.loads(web.daemon.request("GET", f"/containers/{container}/json")[1])
        return bool(found.get("Bennu", {}).get("Ready"))

    def lose() -> None:
        """Have it become ready and lose that, again if it was for too short a time to be looked at."""
        before = losses_seen(web)

        def is_seen() -> bool:
            return losses_seen(web) != before or web.status["State"] != "updating"

        while not is_seen():
            web.daemon.docker("exec", container, "touch", "/tmp/ready")
            web.wait(is_ready, "the canary to be ready")
            time.sleep(2)  # it is looked at every second
            web.daemon.docker("exec", container, "rm", "/tmp/ready")
            web.wait(lambda: not is_ready(), "the canary to be no longer ready")
            with contextlib.suppress(AssertionError):
                wait_for(is_seen, timeout_s=5)

    lose()
    web.daemon.kill()
    web.daemon.start()
    assert (losses_seen(web), web.status["State"]) == (1, "updating"), web.bennu("rollout", "status").out
    lost = 1
    while web.status["State"] == "updating":  # how many are too many depends on how long it was ready
        lose()
        lost += 1
    web.wait_state("rollback_completed")
    told = f"the new version lost its readiness {lost} times, the old one 0 times"
    assert told in web.bennu("rollout", "status").out


def test_a_canary_that_runs_out_of_memory_goes_back_with_the_reason(make: Any) -> None:
    web = make("--replicas=4", "--env=V=1")
    web.update(
        "--env-add=V=2", "--limit-memory=16M", "--args=sh -c 'sleep 1; x=0123456789; while :; do x=$x$x; done'",
        "--label-add=bennu.rollout.strategy=canary",
    )  # fmt: skip
    web.wait_state("rollback_completed")
    told = web.bennu("rollout", "status").out
    assert re.search(r"canary: the new version died \d times? \(\d for lack of memory\), the old one 0 times", told), (
        told
    )
    assert len(web.running("1")) == 4


def test_blue_stays_until_green_has_proved_itself(make: Any) -> None:
    web = make("--replicas=2", "--env=V=1")
    web.update(
        "--env-add=V=2", "--label-add=bennu.rollout.strategy=blue-green", "--label-add=bennu.rollout.settle=300ms"
    )
    web.wait(lambda: web.rollout()["Switched"], "the switch")
    assert len(web.running("1")) == len(web.running("2")) == 2
    web.bennu("rollout", "promote")
    web.wait_state("completed")
    web.wait(lambda: not web.running("1"), "blue to be gone")


def test_a_strategy_that_nobody_knows_is_refused(make: Any) -> None:
    web = make("--replicas=1")
    for label in ("strategy=purple", "steps=0%", "watch=soon", "confidence=2", "colour=red"):
        words = ["--label-add=bennu.rollout.strategy=canary", f"--label-add=bennu.rollout.{label}"]
        said = web.daemon.docker("service", "update", "-d", "--no-resolve-image", *words, web.name, ok=False)
        assert said.code == 1
        assert f"bennu.rollout.{label.partition('=')[0]}" in said.err


def test_any_revision_can_be_gone_back_to(make: Any) -> None:
    web = make("--replicas=1", "--env=V=1")
    for version in ("2", "3"):
        web.update(f"--env-add=V={version}")
        web.wait_state("completed")
        web.wait(lambda version=version: len(web.running(version)) == 1, "the new version")
    lines = web.bennu("rollout", "history").lines
    assert [line.split()[0] for line in lines] == ["REVISION", "3", "2", "1"]
    web.bennu("rollout", "rollback", "--to", "1")
    web.wait_state("rollback_completed")
    assert len(web.running("1")) == 1
    assert "has no revision 9" in web.bennu("rollout", "rollback", "--to", "9", ok=False).err


def test_watching_tells_each_change_and_ends_with_the_rollout(make: Any) -> None:
    web = make("--replicas=2", "--env=V=1")
    web.update("--env-add=V=2")
    done = subprocess.run(
        [BENNU, "rollout", "watch", web.name],
        env=web.daemon.environment, capture_output=True, text=True, timeout=40, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "revision 2: completed: update completed" in done.stdout
    assert "revision 2, running" in done.stdout


def test_watching_on_a_terminal_ends_with_the_whole_bar(make: Any) -> None:
    web = make("--replicas=2", "--env=V=1")
    web.update("--env-add=V=2", "--update-delay=500ms")
    words = [str(BENNU), "rollout", "watch", web.name]
    pid, terminal = pty.fork()
    if pid == 0:
        os.execve(BENNU, words, {**web.daemon.environment, "TERM": "xterm", "COLUMNS": "100", "LINES": "24"})
    seen = b""
    with os.fdopen(terminal, "rb", 0) as screen, contextlib.suppress(OSError):  # EIO: it has ended
        while more := screen.read(65536):
            seen += more
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", seen.decode())
    assert "revision 1 → 2" in shown
    assert "1 of 2 slots serve revision 2" in shown
    assert "■" * 40 + "  2 of 2 slots serve revision 2" in shown


def seconds(moment: str) -> float:
    return datetime.fromisoformat(moment).timestamp()
