"""`docker exec` of the unmodified CLI, and what the API says of exec sessions."""

import hashlib
import json
import os

import pytest

from support.cli import Cli
from support.daemon import Daemon
from support.waiting import wait_for


@pytest.fixture
def box(docker: Cli, busybox: str) -> str:
    """A running container."""
    docker(
        "run", "-d", "--name", "box", "--network", "none", "-e", "A=container", "-w", "/tmp", busybox, "sleep", "1000"
    )
    return "box"


def api(daemon: Daemon, method: str, path: str, body: object = None) -> tuple[int, object]:
    headers = {"Content-Type": "application/json"} if body is not None else {}
    status, raw = daemon.request(method, path, None if body is None else json.dumps(body), headers)
    return status, json.loads(raw) if raw.strip() else None


def test_streams_and_exit_code(docker: Cli, box: str) -> None:
    said = docker("exec", box, "sh", "-c", "echo out; echo err >&2; exit 9", ok=False)
    assert (said.out, said.err, said.code) == ("out\n", "err\n", 9)


def test_a_short_command_is_whole_every_time(docker: Cli, box: str) -> None:
    for number in range(15):
        assert docker("exec", box, "echo", str(number)).out == f"{number}\n"


def test_input_and_its_end_reach_the_process(docker: Cli, box: str) -> None:
    data = os.urandom(2_000_000)
    assert docker("exec", "-i", box, "md5sum", stdin=data).out.split()[0] == hashlib.md5(data).hexdigest()


def test_environment_user_and_folder(docker: Cli, box: str) -> None:
    assert docker("exec", "-e", "B=exec", box, "sh", "-c", "echo $A $B; pwd").lines == ["container exec", "/tmp"]
    assert docker("exec", "-u", "nobody", "-w", "/etc", box, "sh", "-c", "id -un; pwd").lines == ["nobody", "/etc"]


@pytest.mark.parametrize(
    ("argv", "code", "words"),
    [
        (["nosuch"], 127, 'exec: "nosuch": executable file not found in $PATH: unknown'),
        (["/etc/passwd"], 126, "permission denied"),
    ],
)
def test_what_cannot_be_run(docker: Cli, box: str, argv: list[str], code: int, words: str) -> None:
    said = docker("exec", box, *argv, ok=False)
    assert said.code == code
    assert "OCI runtime exec failed: exec failed: unable to start container process" in said.out + said.err
    assert words in said.out + said.err


def test_detached_it_runs_on(docker: Cli, box: str) -> None:
    docker("exec", "-d", box, "sh", "-c", "sleep 0.2; touch /tmp/done")
    wait_for(lambda: "done" in docker("exec", box, "ls", "/tmp").out)


def test_a_killed_command_is_128_and_the_signal(docker: Cli, box: str) -> None:
    assert docker("exec", box, "sh", "-c", "kill -9 $$", ok=False).code == 137


def test_its_life_as_the_api_tells_it(docker: Cli, daemon: Daemon, box: str) -> None:
    status, made = api(daemon, "POST", f"/containers/{box}/exec", {"Cmd": ["sh", "-c", "exit 3"], "AttachStdout": True})
    assert status == 201
    assert isinstance(made, dict)
    exec_id = made["Id"]
    _, before = api(daemon, "GET", f"/exec/{exec_id}/json")
    container = docker("inspect", "-f", "{{.Id}}", box).line
    assert before == {
        "ID": exec_id,
        "Running": False,
        "ExitCode": None,
        "ProcessConfig": {"tty": False, "entrypoint": "sh", "arguments": ["-c", "exit 3"], "privileged": False},
        "OpenStdin": False,
        "OpenStderr": False,
        "OpenStdout": True,
        "CanRemove": False,
        "ContainerID": container,
        "DetachKeys": "",
        "Pid": 0,
    }
    assert api(daemon, "POST", f"/exec/{exec_id}/start", {"Detach": True})[0] == 200

    def ended() -> bool:
        after = api(daemon, "GET", f"/exec/{exec_id}/json")[1]
        assert isinstance(after, dict)
        return after["ExitCode"] == 3 and not after["Running"] and after["Pid"] > 0

    wait_for(ended)
    status, refused = api(daemon, "POST", f"/exec/{exec_id}/start", {"Detach": True})
    assert (status, refused) == (409, {"message": f"exec command {exec_id} has already run"})
    docker("rm", "-f", box)
    assert api(daemon, "GET", f"/exec/{exec_id}/json") == (404, {"message": f"No such exec instance: {exec_id}"})


def test_running_sessions_are_listed_with_their_container(docker: Cli, box: str) -> None:
    assert json.loads(docker("inspect", "-f", "{{json .ExecIDs}}", box).out) is None
    docker("exec", "-d", box, "sleep", "100")
    ids = json.loads(docker("inspect", "-f", "{{json .ExecIDs}}", box).out)
    assert len(ids) == 1


def test_refusals(docker: Cli, daemon: Daemon, box: str) -> None:
    container = docker("inspect", "-f", "{{.Id}}", box).line
    assert api(daemon, "POST", f"/containers/{box}/exec", {}) == (400, {"message": "No exec command specified"})
    assert api(daemon, "POST", "/containers/nope/exec", {"Cmd": ["x"]}) == (404, {"message": "No such container: nope"})
    assert api(daemon, "POST", "/exec/nope/start", {}) == (404, {"message": "No such exec instance: nope"})
    assert api(daemon, "POST", f"/containers/{box}/exec", {"Cmd": ["x"], "DetachKeys": "bogus"}) == (
        500,
        {"message": "Invalid escape keys (bogus) provided"},
    )
    docker("pause", box)
    assert api(daemon, "POST", f"/containers/{box}/exec", {"Cmd": ["x"]}) == (
        409,
        {"message": f"Container {box} is paused, unpause the container before exec"},
    )
    docker("unpause", box)
    docker("kill", box)
    assert api(daemon, "POST", f"/containers/{box}/exec", {"Cmd": ["x"]}) == (
        409,
        {"message": f"container {container} is not running"},
    )


def test_sessions_end_with_their_container(docker: Cli, box: str) -> None:
    with docker.running("exec", box, "sleep", "1000") as session:
        wait_for(lambda: json.loads(docker("inspect", "-f", "{{json .ExecIDs}}", box).out))
        docker("kill", box)
        assert session.wait(20) == 137


def test_an_unknown_user_is_refused_when_the_exec_is_made(daemon: Daemon, box: str) -> None:
    status, said = api(daemon, "POST", f"/containers/{box}/exec", {"Cmd": ["true"], "User": "nosuch"})
    assert status == 400
    assert said == {"message": "unable to find user nosuch: no matching entries in passwd file"}
