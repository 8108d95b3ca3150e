"""The same command lines typed to dockerd and to bennud, by the same client: same exit code, output and error.

dockerd here is 20.10, while we speak as 28 does; `TRANSLATIONS` maps the old wording to the new. Ids, times and
addresses differ by nature and are blanked.
"""

import json
import re
import time
from typing import Final

import pytest

from support.cli import Cli, Said
from support.waiting import wait_for

BLANKS: Final = (
    (re.compile(r"\b[0-9a-f]{64}\b"), "<id>"),
    (re.compile(r"\b[0-9a-f]{12}\b"), "<short id>"),
    (re.compile(r"\d{4}-\d\d-\d\dT[\d:.]+(?:Z|[+-]\d\d:\d\d)"), "<time>"),
    (re.compile(r"\b(?:About a|Less than a|\d+) (?:second|minute)s?\b"), "<while>"),
    (re.compile(r"\b172\.\d+\.\d+\.\d+\b"), "<address>"),
)
TRANSLATIONS: Final = (
    (re.compile("daemon: failed to create shim"), "daemon: failed to create task for container: failed to create shim"),
    (re.compile(r'(exec: "/etc"): permission denied'), r"\1: is a directory: permission denied"),
    (re.compile(r"open o_path procfd: open \S+: "), ""),
    (re.compile(r"See 'docker run --help'\.\n"), ""),  # a client of 20.10 says it now and then
    (re.compile(r"Invalid filter "), "invalid filter "),
    (re.compile(r"\b(f[ef]00::)0\t"), r"\1\t"),
)

SHELL: Final = ("run", "--rm", "busybox", "sh", "-c")
COMMANDS: Final = [
    pytest.param([*SHELL, "echo out; echo err >&2; exit 3"], id="output-and-exit-code"),
    pytest.param([*SHELL, "id; pwd; hostname | wc -c; cat /proc/1/comm; umask"], id="who-and-where"),
    pytest.param(
        ["run", "--rm", "-u", "nobody", "-w", "/tmp", "busybox", "sh", "-c", "id; pwd"], id="user-and-workdir"
    ),
    pytest.param(["run", "--rm", "-e", "A=1", "-e", "B", "busybox", "env"], id="environment"),
    pytest.param(["run", "--rm", "-h", "phoenix", "busybox", "sh", "-c", "hostname; echo $HOSTNAME"], id="hostname"),
    pytest.param([*SHELL, "grep Cap /proc/self/status"], id="capabilities"),
    pytest.param(["run", "--rm", "--cap-drop=ALL", "busybox", "grep", "Cap", "/proc/self/status"], id="cap-drop"),
    pytest.param(
        ["run", "--rm", "--cap-add=NET_ADMIN", "busybox", "grep", "CapEff", "/proc/self/status"], id="cap-add"
    ),
    pytest.param([*SHELL, "grep -E 'Seccomp|NoNewPrivs' /proc/self/status | head -2"], id="seccomp"),
    pytest.param(["run", "--rm", "--read-only", "busybox", "touch", "/x"], id="read-only"),
    pytest.param(["run", "--rm", "--tmpfs=/t:size=1m", "busybox", "sh", "-c", "df -k /t | tail -1"], id="tmpfs"),
    pytest.param([*SHELL, "ls -a / | sort | tr '\\n' ' '"], id="root-folder"),
    pytest.param([*SHELL, "ls /dev | grep -v core | sort | tr '\\n' ' '"], id="devices"),
    # Masked files are bound from a device here and from a file system there; 28 masks some more.
    pytest.param([*SHELL, "cut -d' ' -f2,3 /proc/mounts | grep -vE '^/(proc|sys)/' | sort"], id="mount-points"),
    pytest.param([*SHELL, "cat /proc/kcore"], id="masked-path"),
    pytest.param([*SHELL, "echo 1 > /proc/sys/kernel/panic"], id="read-only-path"),
    pytest.param([*SHELL, "cat /etc/hosts | sed 's/.*\\t[0-9a-f]*$/self/'"], id="hosts"),
    pytest.param(["run", "--rm", "--add-host=a:1.2.3.4", "busybox", "grep", "1.2.3.4", "/etc/hosts"], id="extra-host"),
    pytest.param(["run", "--rm", "--network=none", "busybox", "ls", "/sys/class/net"], id="no-network"),
    pytest.param(
        ["run", "--rm", "--ulimit=nofile=100:200", "busybox", "sh", "-c", "ulimit -n; ulimit -Hn"], id="ulimit"
    ),
    pytest.param(["run", "--rm", "--init", "busybox", "cat", "/proc/1/comm"], id="init"),
    pytest.param(["run", "--rm", "busybox", "no-such-program"], id="not-found"),
    pytest.param(["run", "--rm", "busybox", "/etc"], id="cannot-be-invoked"),
    pytest.param(["run", "--rm", "-w", "/etc/passwd", "busybox", "true"], id="workdir-is-a-file"),
    pytest.param(["run", "--rm", "-v", "/tmp:/etc/passwd/z", "busybox", "true"], id="mount-below-a-file"),
    pytest.param(["run", "--rm", "-u", "nobody-here", "busybox", "true"], id="no-such-user"),
    pytest.param(["run", "--rm", "--restart=always", "busybox", "true"], id="rm-and-restart"),
    pytest.param(["run", "--rm", "-m", "1m", "busybox", "true"], id="too-little-memory"),
    pytest.param(["run", "--rm", "--name", "-x", "busybox", "true"], id="bad-name"),
    pytest.param(["start", "nobody"], id="start-nobody"),
    pytest.param(["stop", "nobody"], id="stop-nobody"),
    pytest.param(["rm", "nobody"], id="rm-nobody"),
    pytest.param(["logs", "nobody"], id="logs-nobody"),
    pytest.param(["exec", "nobody", "true"], id="exec-nobody"),
    pytest.param(["wait", "nobody"], id="wait-nobody"),
    pytest.param(["inspect", "nobody"], id="inspect-nobody"),
    pytest.param(["rmi", "nobody"], id="rmi-nobody"),
    pytest.param(["volume", "rm", "nobody"], id="volume-rm-nobody"),
    pytest.param(["network", "inspect", "nobody"], id="network-inspect-nobody"),
    pytest.param(["ps", "--filter", "nonsense=1"], id="bad-filter"),
    pytest.param(["create", "--health-interval=1us", "busybox", "true"], id="health-interval-too-short"),
    pytest.param(["create", "--health-retries=-1", "busybox", "true"], id="health-retries-negative"),
    pytest.param(["create", "--no-healthcheck", "--health-cmd=x", "busybox", "true"], id="health-flags-that-clash"),
]


def blanked(text: str) -> str:
    for pattern, replacement in (*TRANSLATIONS, *BLANKS):
        text = pattern.sub(replacement, text)
    return text


def told(said: Said) -> tuple[int, str, str]:
    return said.code, blanked(said.out), blanked(said.err)


@pytest.mark.parametrize("words", COMMANDS)
def test_the_same_command_ends_the_same(words: list[str], docker: Cli, busybox: str, oracle: Cli) -> None:
    assert told(docker(*words, ok=False)) == told(oracle(*words, ok=False))


# --- inspect -------------------------------------------------------------------------------------------------------

SHAPE: Final = (
    "create",
    "--name=shape",
    "-p",
    "80",
    "-v",
    "/data",
    "--restart=on-failure:3",
    "--label",
    "a=b",
    "busybox",
)


def shape(value: object, path: str = "") -> dict[str, str]:
    """Every key there is, with the kind of its value; entries of maps that a user fills are left out."""
    if isinstance(value, dict):
        found = {path: "object"}
        for key, inner in value.items():
            name = "*" if path.endswith((".Ports", ".PortBindings", ".Labels", ".Volumes", ".Networks")) else key
            found |= shape(inner, f"{path}.{name}")
        return found
    kind = "null or list" if value is None or isinstance(value, list) else type(value).__name__
    return {path: kind}


def test_inspect_has_every_key_that_the_original_has(docker: Cli, busybox: str, oracle: Cli) -> None:
    shapes = []
    for cli in (docker, oracle):
        cli(*SHAPE)
        shapes.append(shape(json.loads(cli("inspect", "shape").out)[0]))
        cli("rm", "-v", "shape")
    ours, theirs = shapes
    # Gone in newer releases, or there on AppArmor and SELinux hosts only.
    old = {".HostConfig.KernelMemory", ".HostConfig.KernelMemoryTCP"}
    assert {key: kind for key, kind in theirs.items() if ours.get(key) != kind and key not in old} == {}


HEALTH_CHECKS: Final = {
    "success": ("--health-cmd=echo out; echo err >&2", 1),
    "failure": ("--health-cmd=exit 7", 1),
    "too much output": ("--health-cmd=head -c 5000 /dev/zero | tr '\\0' x; false", 1),
    "not in time": ("--health-cmd=sleep 60", 1),
    "none": ("--no-healthcheck", 0),
}


@pytest.mark.parametrize(("flag", "probes"), HEALTH_CHECKS.values(), ids=HEALTH_CHECKS)
def test_a_health_check_looks_the_same(flag: str, probes: int, docker: Cli, busybox: str, oracle: Cli) -> None:
    seen = [look_at_health(cli, flag, probes) for cli in (docker, oracle)]
    assert seen[0] == seen[1]


def look_at_health(cli: Cli, flag: str, probes: int) -> tuple[object, ...]:
    """The state, what `ps` says, and the events of the first probe."""
    times = ("--health-interval=300ms", "--health-timeout=1s", "--health-retries=1") if probes else ()
    container_id = cli("run", "-d", "--name=looked-at", flag, *times, "busybox", "sleep", "600").line
    state = "{{json .State.Health}}"
    if probes:
        wait_for(lambda: json.loads(cli("inspect", "-f", state, container_id).line)["Log"], what="a probe")
    found = json.loads(cli("inspect", "-f", "{{json .State}}", container_id).line).get("Health")
    shown = cli("ps", "--filter", f"id={container_id}", "--format", "{{.Status}}").line
    lines = wait_for(lambda: first_exec(cli, container_id), what="its events") if probes else []
    cli("rm", "-f", container_id)
    if found:
        found = {**found, "FailingStreak": min(1, found["FailingStreak"]), "Log": found["Log"][0]}
        found["Log"] |= {"Start": "", "End": "", "Output": found["Log"]["Output"].replace("err\nout", "out\nerr")}
    return found, re.sub(r"Up .*? ?(\(|$)", r"Up \1", shown), lines


def first_exec(cli: Cli, container_id: str) -> list[str]:
    """The events of the first exec, once it has ended."""
    until = f"{time.time() + 0.1:.9f}"
    words = ("--filter", f"container={container_id}", "--format", "{{.Action}} {{json .Actor.Attributes}}")
    lines = [line for line in cli("events", "--since", "1", "--until", until, *words).lines if line.startswith("exec_")]
    ids = [re.search(r'"execID":"(\w+)"', line) for line in lines]
    mine = [line for line, found in zip(lines, ids, strict=True) if found and ids[0] and found[1] == ids[0][1]]
    return [mask_ids(line) for line in mine] if any(line.startswith("exec_die") for line in mine) else []


def mask_ids(text: str) -> str:
    """dockerd says 137 of a probe that was cut off when it looks a moment later than usual, else 127."""
    return re.sub(r"[0-9a-f]{64}", "<id>", text).replace('"exitCode":"137"', '"exitCode":"127"')
