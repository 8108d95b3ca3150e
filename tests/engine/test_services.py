"""Services through the unmodified docker command: they keep their number, whatever dies."""

import asyncio
import os
import signal
import socket
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from support import images
from support.swarm import SwarmNode, container_of, open_swarm
from support.waiting import wait_for

NO_SUCH_IMAGE = "127.0.0.1:1/no/such/image:v2"  # of a registry that is not there, and says so at once
SLEEPER = ("busybox", "sleep", "1000")
SERVER = """
import http.server, os
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(os.environ["V"].encode())
    def log_message(self, *words):
        pass
http.server.ThreadingHTTPServer(("", 8000), Answer).serve_forever()
"""


@pytest.fixture(scope="module")
def _node(able: None) -> Iterator[SwarmNode]:
    with open_swarm("busybox", "python") as node:
        images.build_example(node.daemon.docker, "signaltest", "signaltest:v1")
        yield node


@pytest.fixture
def node(_node: SwarmNode) -> Iterator[SwarmNode]:
    if not _node.daemon.is_alive:
        _node.daemon.start()
    yield _node
    assert _node.daemon.is_alive, _node.daemon.log()[-3000:]
    _node.clear()


def test_a_failed_task_comes_back_and_a_completed_one_stays_down(node: SwarmNode) -> None:
    node.create("s", "--replicas=2", "--restart-condition=on-failure", "--restart-delay=1s", "signaltest:v1")
    first, second = node.wait_running("s", 2)
    wait_for(lambda: "alive" in node.docker("logs", container_of(second)).out)
    wait_for(lambda: "alive" in node.docker("logs", container_of(first)).out)
    node.docker("kill", "--signal=SIGTERM", container_of(first))
    failed = node.wait_task("s", "failed")
    assert failed["Status"]["Err"] == "task: non-zero exit (15)"
    assert failed["Status"]["ContainerStatus"]["ExitCode"] == 15
    assert failed["DesiredState"] == "shutdown"
    node.wait_running("s", 2)
    node.docker("kill", "--signal=SIGUSR1", container_of(second))
    complete = node.wait_task("s", "complete")
    assert complete["Status"]["Message"] == "finished"
    assert len(node.wait_running("s", 1)) == 1
    assert "1/2" in node.docker("service", "ls").out


def test_the_replacement_is_made_during_the_restart_delay_and_started_after_it(node: SwarmNode) -> None:
    node.create("s", "--restart-delay=3s", *SLEEPER)
    (task,) = node.wait_running("s", 1)
    killed_at = time.monotonic()
    node.docker("kill", container_of(task))
    heir = node.wait_task("s", "ready", timeout_s=2.5)
    assert heir["DesiredState"] == "ready"
    node.wait_running("s", 1)
    assert 2.9 < time.monotonic() - killed_at < 5


def test_scaling_fills_and_empties_slots(node: SwarmNode) -> None:
    node.create("s", "--replicas=1", *SLEEPER)
    node.wait_running("s", 1)
    node.docker("service", "scale", "-d", "s=4")
    assert {task["Slot"] for task in node.wait_running("s", 4)} == {1, 2, 3, 4}
    node.docker("service", "scale", "-d", "s=2")
    wait_for(lambda: len(node.tasks("s")) == 2, timeout_s=30)
    assert {task["Slot"] for task in node.tasks("s")} == {1, 2}
    wait_for(lambda: len(node.docker("ps", "-aq").lines) == 2, timeout_s=15)


def test_the_docker_command_sees_a_service_converge(node: SwarmNode) -> None:
    said = node.docker("service", "create", "--name", "s", "--replicas=2", *SLEEPER)
    assert said.lines[0] == node.ask("/services/s")["ID"]
    assert "overall progress: 2 out of 2 tasks" in said.out
    assert said.lines[-1].endswith("converged")


def test_services_outlive_a_killed_daemon_and_no_task_is_replaced(node: SwarmNode) -> None:
    node.create("s", "--replicas=3", "--restart-delay=0s", *SLEEPER)
    before = node.wait_running("s", 3)
    victim = before[0]
    node.daemon.kill()
    pids = {task["Status"]["ContainerStatus"]["PID"] for task in before}
    assert all(Path(f"/proc/{pid}").exists() for pid in pids)

    os.kill(victim["Status"]["ContainerStatus"]["PID"], signal.SIGKILL)  # dies while no daemon lives
    node.daemon.start()
    failed = node.wait_task("s", "failed")
    assert failed["ID"] == victim["ID"]
    assert failed["Status"]["Err"] == "task: non-zero exit (137)"
    after = {task["ID"] for task in node.wait_running("s", 3)}
    assert {task["ID"] for task in before[1:]} < after


@pytest.mark.slow
def test_a_daemon_that_stood_still_finds_its_node_alive_and_replaces_nothing(node: SwarmNode) -> None:
    node.docker("swarm", "update", "--dispatcher-heartbeat", "1s")
    node.create("still", "--replicas", "2", "busybox", "sleep", "1000")
    before = {task["ID"] for task in node.wait_running("still", 2)}
    time.sleep(1.5)
    os.kill(node.daemon.pid, signal.SIGSTOP)
    time.sleep(5)
    os.kill(node.daemon.pid, signal.SIGCONT)
    time.sleep(2)
    assert {task["ID"] for task in node.tasks("still")} == before
    assert node.docker("node", "ls", "--format", "{{.Status}}").lines == ["Ready"]


def test_a_killed_daemon_finishes_a_removal(node: SwarmNode) -> None:
    node.create("s", "--replicas=3", *SLEEPER)  # sleep as PID 1 ignores SIGTERM: stopping takes its grace period
    node.wait_running("s", 3)
    node.docker("service", "rm", "s")
    node.daemon.kill()
    node.daemon.start()
    wait_for(lambda: not node.docker("ps", "-aq").lines, timeout_s=40)
    assert node.ask("/tasks") == []


def test_a_port_that_a_container_publishes_is_told_and_the_other_way_round_refused(node: SwarmNode) -> None:
    port = free_port()
    node.docker("run", "-d", "--name", "plain", "-p", f"{port}:80", "busybox", "sleep", "1000")
    words = (
        "service",
        "create",
        "-d",
        "--no-resolve-image",
        "--name",
        "s",
        "-p",
        f"{port}:80",
        "busybox",
        "sleep",
        "9",
    )
    told = node.docker(*words).err
    assert f"port {port}/tcp is published by container plain too; from now on it leads to the service" in told
    assert node.docker("service", "update", "-d", "--label-add", "a=b", "s").err.count("plain") <= 1
    node.docker("rm", "-f", "plain")

    port = free_port()
    node.create("first", "-p", f"{port}:80", *SLEEPER)
    node.wait_task("first", "starting")
    refused = node.docker("run", "--rm", "-p", f"{port}:80", "busybox", "true", ok=False)
    assert "port is already allocated" in refused.err


def test_a_task_that_is_not_ready_says_what_it_waits_for(node: SwarmNode) -> None:
    node.create("deaf", "-p", f"{free_port()}:80", *SLEEPER)
    node.create("sick", "--health-cmd", "false", "--health-start-period", "1m", *SLEEPER)
    for name, why in (("deaf", "none of its published ports accepts"), ("sick", "its health check has not succeeded")):
        node.wait_task(name, "starting")
        wait_for(lambda: why in node.daemon.bennu("why", name).out, what=why)  # noqa: B023


def test_a_missing_image_rejects_the_task_with_its_name(node: SwarmNode) -> None:
    node.create("s", NO_SUCH_IMAGE)
    rejected = node.wait_task("s", "rejected")
    assert rejected["Status"]["Err"] == f"No such image: {NO_SUCH_IMAGE}"


def test_a_command_that_does_not_exist_fails_the_start(node: SwarmNode) -> None:
    node.create("s", "--restart-condition=none", "busybox", "/no/such/command")
    failed = node.wait_task("s", "failed")
    assert failed["Status"]["Err"].startswith("starting container failed: ")
    assert failed["Status"]["ContainerStatus"]["ExitCode"] == 127


def test_an_unhealthy_task_fails_and_is_replaced(node: SwarmNode) -> None:
    node.create(
        *(
            "s",
            "--health-cmd",
            "test ! -e /bad",
            "--health-interval=200ms",
            "--health-retries=2",
            "--stop-grace-period=1s",
        ),
        *("--restart-delay=0s", *SLEEPER),
    )
    (task,) = node.wait_running("s", 1)
    node.docker("exec", container_of(task), "touch", "/bad")
    failed = node.wait_task("s", "failed")
    assert failed["Status"]["Err"] == "task: non-zero exit (137): dockerexec: unhealthy container"
    (heir,) = node.wait_running("s", 1)
    assert heir["ID"] != task["ID"]


def test_a_task_that_never_gets_healthy_never_runs(node: SwarmNode) -> None:
    node.create("s", "--health-cmd", "false", "--health-interval=300ms", "--health-retries=100", *SLEEPER)
    task = node.wait_task("s", "starting")
    time.sleep(1.5)
    assert node.ask(f"/tasks/{task['ID']}")["Status"]["State"] == "starting"


def test_labels_names_templates_secrets_and_configs_reach_the_container(node: SwarmNode) -> None:
    node.docker("secret", "create", "word", "-", stdin="open sesame")
    node.docker("config", "create", "conf", "-", stdin="a=1")
    node.create(
        *(
            "s",
            "--secret",
            "word",
            "--config",
            "source=conf,target=/etc/conf,mode=0400",
            "--env",
            "SLOT={{.Task.Slot}}",
        ),
        *("--hostname", "{{.Service.Name}}-{{.Task.Slot}}", "--container-label", "a=b", *SLEEPER),
    )
    (task,) = node.wait_running("s", 1)
    inside = container_of(task)
    script = (
        "cat /run/secrets/word; echo; cat /etc/conf; echo; echo $SLOT; hostname; stat -c %a /run/secrets/word /etc/conf"
    )
    assert node.docker("exec", inside, "sh", "-c", script).lines == ["open sesame", "a=1", "1", "s-1", "444", "400"]
    shown = node.ask(f"/containers/{inside}/json")
    assert shown["Name"] == f"/s.1.{task['ID']}"
    assert shown["Config"]["Labels"]["com.docker.swarm.service.name"] == "s"
    assert shown["Config"]["Labels"]["a"] == "b"
    for path in node.daemon.data_root.glob("state.db*"):
        assert b"open sesame" not in path.read_bytes()
    assert "is in use by the following service: s" in node.docker("secret", "rm", "word", ok=False).err


def test_tasks_find_each_other_by_the_name_of_their_service(node: SwarmNode) -> None:
    node.docker("network", "create", "-d", "overlay", "inner")
    node.create("db", "--network", "inner", *SLEEPER)
    node.create("app", "--network", "inner", *SLEEPER)
    (db,) = node.wait_running("db", 1)
    (app,) = node.wait_running("app", 1)
    address = db["NetworksAttachments"][0]["Addresses"][0].partition("/")[0]
    found = node.docker("exec", container_of(app), "nslookup", "tasks.db").out
    assert address in found
    refused = node.docker("network", "rm", "inner", ok=False).err
    assert f"is in use by service {node.ask('/services')[0]['ID'][:5]}"[:20] in refused


def test_an_update_to_a_missing_image_pauses_and_takes_nothing_down(node: SwarmNode) -> None:
    node.create("s", "--replicas=3", "--update-monitor=1s", *SLEEPER)
    node.wait_running("s", 3)
    said = node.docker("service", "update", "--image", NO_SUCH_IMAGE, "s", ok=False)
    assert said.code == 1
    status = node.ask("/services/s")["UpdateStatus"]
    assert status["State"] == "paused"
    assert status["Message"].startswith("update paused due to failure or early termination of task ")
    assert len(node.running("s")) == 3


def test_a_bad_update_rolls_itself_back(node: SwarmNode) -> None:
    node.create("s", "--replicas=2", "--update-failure-action=rollback", "--update-monitor=1s", *SLEEPER)
    node.wait_running("s", 2)
    node.docker("service", "update", "-d", "--args", "false", "s")
    wait_for(lambda: node.ask("/services/s").get("UpdateStatus", {}).get("State") == "rollback_completed", timeout_s=40)
    assert [task["Spec"]["ContainerSpec"]["Args"] for task in node.wait_running("s", 2)] == [["sleep", "1000"]] * 2


def test_an_update_and_its_rollback_drop_no_request(node: SwarmNode) -> None:
    port = free_port()
    node.create(
        *("web", "--replicas=2", "-p", f"{port}:8000", "--env", "V=1", "--init", "--update-monitor=500ms"),
        *("--rollback-monitor=500ms", "python", "python3", "-c", SERVER),
    )
    node.wait_running("web", 2)

    async def play() -> tuple[Counter[str], Counter[str]]:
        ending = asyncio.Event()
        seen: Counter[str] = Counter()
        errors: Counter[str] = Counter()

        async def ask() -> None:
            while not ending.is_set():
                try:
                    async with asyncio.timeout(10):
                        reader, writer = await asyncio.open_connection("127.0.0.1", port)
                        writer.write(b"GET / HTTP/1.0\r\n\r\n")
                        seen[(await reader.read()).rpartition(b"\r\n\r\n")[2].decode()] += 1
                        writer.close()
                except (OSError, TimeoutError) as error:
                    errors[repr(error)] += 1

        async def change() -> None:
            for words in (("update", "-q", "--env-add", "V=2", "web"), ("rollback", "-q", "web"), ("scale", "web=4")):
                await asyncio.to_thread(node.docker, "service", *words)
            await asyncio.to_thread(node.docker, "service", "scale", "web=1")
            ending.set()

        await asyncio.gather(change(), *(ask() for _ in range(8)))
        return seen, errors

    seen, errors = asyncio.run(play())
    assert errors == {}
    assert set(seen) == {"1", "2"}
    assert sum(seen.values()) > 500


def test_a_slow_request_is_finished_before_its_task_is_stopped(node: SwarmNode) -> None:
    port = free_port()
    slow = (
        "import socket, time; listener = socket.create_server(('', 8000)); client, _ = listener.accept(); "
        "time.sleep(3); client.send(b'done'); client.close(); time.sleep(1000)"
    )
    node.create("slow", "-p", f"{port}:8000", "--init", "python", "python3", "-c", slow)
    node.wait_running("slow", 1)
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
        time.sleep(0.3)
        node.docker("service", "rm", "slow")
        assert client.recv(100) == b"done"


STACK = """
services:
  web:
    image: ${STACK_IMAGE:-busybox:latest}
    command: ["sleep", "1000"]
    stop_grace_period: 0s
    configs: [greeting]
    secrets: [{source: word, target: key, mode: 0400}]
    networks: [inner]
    environment: {B: "2", A: "1"}
    volumes: ["data:/data", "./greeting:/bound:ro"]
    healthcheck: {test: ["CMD", "true"], interval: 1s}
    ulimits: {nofile: 512}
    deploy:
      replicas: 2
      restart_policy: {condition: on-failure, delay: 1s}
      update_config: {parallelism: 1, delay: 1s}
      resources: {limits: {memory: 64M}}
  extra:
    image: busybox:latest
    command: sleep 1000
    stop_signal: SIGKILL
networks:
  inner: {}
volumes:
  data: {}
configs:
  greeting:
    file: ./greeting
secrets:
  word:
    file: ./greeting
"""


def test_a_stack_is_deployed_listed_and_removed(node: SwarmNode, tmp_path: Path) -> None:
    compose = tmp_path / "stack.yml"
    compose.write_text(STACK)
    (tmp_path / "greeting").write_text("hello")
    deploy = ("stack", "deploy", "--resolve-image", "never", "-c", compose, "st")
    said = node.docker(*deploy).lines
    assert {"Creating network st_inner", "Creating network st_default", "Creating secret st_word"} < set(said)
    assert {"Creating config st_greeting", "Creating service st_web", "Creating service st_extra"} < set(said)
    tasks = node.wait_running("st_web", 2)
    inside = container_of(tasks[0])
    assert node.docker("exec", inside, "cat", "/greeting", "/run/secrets/key", "/bound").out == "hello" * 3
    assert node.docker("stack", "ls").lines[1].split() == ["st", "2"]
    assert len(node.docker("stack", "ps", "-q", "st").lines) == 3
    assert "st_web" in node.docker("stack", "services", "st").out

    # What has not changed replaces no task.
    assert "Updating service st_web" in node.docker(*deploy).out
    time.sleep(1)
    assert {task["ID"] for task in node.wait_running("st_web", 2)} == {task["ID"] for task in tasks}

    (tmp_path / "greeting").write_text("changed")
    refused = node.docker(*deploy, ok=False)
    assert refused.code == 1
    assert "failed to update secret st_word" in refused.err
    assert "only updates to Labels are allowed" in refused.err

    (tmp_path / "greeting").write_text("hello")
    compose.write_text(STACK.replace("  extra:", "  other:"))
    said = node.docker(*deploy[:-1], "--prune", "st").lines
    assert "Removing service st_extra" in said
    assert "Creating service st_other" in said
    node.docker("stack", "rm", "st")
    assert node.docker("stack", "ls", "--format", "{{.Name}}").lines == []
    assert "st_" not in node.docker("network", "ls", "--format", "{{.Name}}").out
    assert node.docker("secret", "ls", "-q").lines == node.docker("config", "ls", "-q").lines == []
    assert "Nothing found in stack: st" in node.docker("stack", "rm", "st").err


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def test_a_job_is_waited_for_and_run_again_by_an_update(node: SwarmNode) -> None:
    options = ("--no-resolve-image", "--name=job", "--mode=replicated-job", "--replicas=3", "--max-concurrent=2")
    said = node.docker("service", "create", *options, "busybox", "sh", "-c", "sleep 0.3")
    assert "job complete" in said.out
    assert node.docker("service", "ls", "--filter=name=job", "--format={{.Replicas}}").line == "0/2 (3/3 completed)"
    states = node.docker("service", "ps", "--format={{.DesiredState}} {{.CurrentState}}", "job").lines
    assert [line.split()[:2] for line in states] == [["Complete", "Complete"]] * 3
    assert "job complete" in node.docker("service", "update", "--no-resolve-image", "--force", "job").out
    assert node.ask("/services/job")["JobStatus"]["JobIteration"] == {"Index": 1}
    wait_for(lambda: len(node.tasks("job")) == 3, what="the tasks of the first round to go")
    assert {task["JobIteration"]["Index"] for task in node.tasks("job")} == {1}
    everywhere = ("--no-resolve-image", "--name=everywhere", "--mode=global-job")
    assert "job complete" in node.docker("service", "create", *everywhere, "busybox", "true").out


def test_a_job_that_fails_is_tried_again_until_it_completes(node: SwarmNode) -> None:
    script = "test -e /kept/tried && exit 0; touch /kept/tried; exit 7"
    options = (
        "--no-resolve-image",
        "--mode=replicated-job",
        "--restart-delay=100ms",
        "--mount=source=kept,target=/kept",
    )
    said = node.docker("service", "create", "--name=job", *options, "busybox", "sh", "-c", script)
    assert "job complete" in said.out
    ended = {(task["Status"]["State"], task["Status"]["ContainerStatus"]["ExitCode"]) for task in node.tasks("job")}
    assert ended == {("complete", 0), ("failed", 7)}
