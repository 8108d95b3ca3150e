"""The command itself, before any daemon is asked."""

import subprocess
import sys

import pytest

from bennu.cli.main import run_command

NOWHERE = ["-H", "unix:///nowhere/s"]


def test_no_daemon_is_said_with_its_cure(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command([*NOWHERE, "ps"]) == 1
    said = capsys.readouterr().err
    assert "Cannot connect to the Bennu daemon at unix:///nowhere/s" in said
    assert "sudo bennud" in said


@pytest.mark.parametrize(
    ("word", "suggestion"), [("lgos", "'bennu logs'"), ("vol", "'bennu volume'"), ("resart", "'bennu restart'")]
)
def test_an_unknown_command_suggests_the_nearest(
    capsys: pytest.CaptureFixture[str], word: str, suggestion: str
) -> None:
    assert run_command([word]) == 1
    said = capsys.readouterr().err
    assert f"bennu: unknown command: bennu {word}" in said
    assert f"Did you mean {suggestion}" in said


@pytest.mark.parametrize(
    ("line", "code", "complaint"),
    [
        ("ps extra", 1, "'bennu ps' accepts no arguments"),
        ("rm", 1, "'bennu rm' requires at least 1 argument"),
        ("rename a", 1, "'bennu rename' requires 2 arguments"),
        ("logs a b", 1, "'bennu logs' requires 1 argument"),
        ("port a b c", 1, "'bennu port' requires at most 2 arguments"),
        ("run --bogus x", 125, "unknown flag: --bogus"),
        ("ps -f bogus", 125, "bad format of filter (expected name=value)"),
        ("run -m x busybox", 125, 'invalid argument "x" for "-m, --memory" flag: invalid size: \'x\''),
        ("run --rm --restart always busybox", 125, "cannot specify both --restart and --rm"),
        ("run --no-healthcheck --health-cmd x busybox", 125, "--no-healthcheck conflicts with --health-* options"),
        ("run --device x busybox", 125, "x is not an absolute path"),
        ("run --pid bogus busybox", 125, "--pid: invalid PID mode"),
        ("run -d -a stdout busybox", 1, "cannot specify both --attach and --detach"),
        ("run -d --detach-keys zz busybox", 1, "invalid detach keys (zz) provided"),
        ("run --network n --network none busybox", 125, "cannot attach both user-defined and non-user-defined"),
        ("run --network n --network n busybox", 125, 'network "n" is specified multiple times'),
        ("run --gpus all busybox", 125, "--gpus is not implemented"),
        ("inspect -f {{.Name x", 64, "unclosed action"),
        ("update c", 1, "you must provide one or more flags"),
        ("cp a b", 1, "must specify at least one container source"),
        ("cp a:/x b:/y", 1, "copying between containers is not supported"),
        ("logs --since yesterday c", 1, 'invalid value for "since"'),
        ("build /nowhere/at/all", 1, 'path "/nowhere/at/all" not found'),
        ("load -i /nowhere/at/all", 1, "open /nowhere/at/all: no such file or directory"),
        ("--bogus", 125, "unknown flag: --bogus"),
        ("-H ftp://x ps", 1, "unable to parse docker host `ftp://x`"),
        ("-H tcp://x:port ps", 1, "unable to parse docker host `tcp://x:port`"),
        ("-H 127.0.0.1:1 ps", 1, "Cannot connect to the Bennu daemon at tcp://127.0.0.1:1: connection refused"),
    ],
)
def test_a_line_that_makes_no_sense_is_refused_with_its_code(
    capsys: pytest.CaptureFixture[str], line: str, code: int, complaint: str
) -> None:
    words = line.split() if not line.startswith("inspect") else ["inspect", "-f", "{{.Name", "x"]
    assert run_command(words if line.startswith("-") else [*NOWHERE, *words]) == code
    assert complaint in capsys.readouterr().err


def every_command() -> list[list[str]]:
    from bennu.cli.main import GROUPS, ROOT

    own = [[name] for name in ROOT if name not in ("demo", "doctor")]
    return [[], *own, *([group, name] for group, (_, table) in GROUPS.items() for name in table)]


@pytest.mark.parametrize("words", every_command(), ids=" ".join)
def test_every_command_has_help(capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    assert run_command([*words, "--help"]) == 0
    assert capsys.readouterr().out.startswith(" ".join(["Usage: bennu", *words]))


def test_the_command_loads_nothing_heavy_before_it_must() -> None:
    heavy = {"asyncio", "aiohttp", "rich", "msgspec", "http.client", "ssl", "email", "tarfile"}
    script = (
        "import sys; from bennu.cli.main import run_command; run_command(['-H', 'unix:///nowhere/s', 'version']);"
        f"print(sorted(set(sys.modules) & {heavy!r}))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines()[-1] == "[]"
