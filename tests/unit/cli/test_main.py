"""The command itself, before any daemon is asked: whose a word is, and what becomes of it."""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from bennu.cli.contexts import open_context
from bennu.cli.main import is_own
from bennu.cli.words import WORDS, run_words

PROGRAMS = Path(sys.executable).parent
# Signals 32 and 33 are ignored in what posix_spawn of glibc starts, as Python does from 3.13 on.
OF_THE_C_LIBRARY = 1 << 31 | 1 << 32
# Says how it was called, as a docker command cannot, and ends as its last word wants it.
STAND_IN = """#!/bin/sh
grep SigIgn /proc/self/status
printf '%s\\n' "$DOCKER_HOST" "$@"
for last; do :; done
eval "$last"
"""


@pytest.mark.parametrize(
    ("line", "own"),
    [
        ("", True),
        ("--version", True),
        ("why web", True),
        ("-H unix:///x why web", True),
        ("--host=unix:///x rollout watch web", True),
        ("--tlsverify --tlscacert why ps", False),
        ("restart --now web", True),
        ("restart web", False),
        ("help", True),
        ("help why", True),
        ("help run", False),
        ("run busybox why", False),
        ("ps --help", False),
        ("-D ps", False),
    ],
)
def test_whose_a_line_is(line: str, own: bool) -> None:
    assert is_own(line.split()) is own


@pytest.fixture
def docker(tmp_path: Path) -> Path:
    path = tmp_path / "bin/docker"
    path.parent.mkdir()
    path.write_text(STAND_IN)
    path.chmod(0o755)
    return path


def bennu(*words: str, path: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": f"{path}:/usr/bin:/bin" if path else "/nowhere", "LC_ALL": "C.UTF-8", **environment}
    argv = [PROGRAMS / "bennu", *words]
    return subprocess.run(argv, env=environment, capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.parametrize(
    ("environment", "host"),
    [
        ({}, "unix:///run/bennu/bennu.sock"),
        ({"DOCKER_HOST": "unix:///d"}, "unix:///d"),
        ({"DOCKER_HOST": "unix:///d", "BENNU_HOST": "10.0.0.1:2376"}, "tcp://10.0.0.1:2376"),
    ],
    ids=["neither", "docker's", "ours first"],
)
def test_dockers_words_become_the_docker_command_untouched(
    docker: Path, environment: dict[str, str], host: str
) -> None:
    words = ["--tlsverify", "run", "-it", "--name=a b", "", "exit 42"]
    done = bennu(*words, path=str(docker.parent), **environment)
    ignored, *said = done.stdout.splitlines()
    assert said == [host, *words]
    assert done.returncode == 42
    assert int(ignored.removeprefix("SigIgn:"), 16) & ~OF_THE_C_LIBRARY == 0


def test_a_signal_that_ends_docker_ends_bennu(docker: Path) -> None:
    assert bennu("run", "kill -TERM $$", path=str(docker.parent)).returncode == -15


def test_without_a_docker_command_the_cure_is_said() -> None:
    done = bennu("ps")
    assert done.returncode == 127
    assert "none on PATH: install docker-cli" in done.stderr


def test_bennu_under_the_name_of_docker_is_not_what_it_looks_for(tmp_path: Path) -> None:
    (tmp_path / "docker").symlink_to(PROGRAMS / "bennu")
    assert "none on PATH" in bennu("ps", PATH=str(tmp_path)).stderr


def test_handing_over_loads_nothing_heavy() -> None:
    heavy = {"asyncio", "click", "rich", "msgspec", "http.client", "json", "ssl", "subprocess", "urllib.parse"}
    script = f"import sys, bennu.cli.main, bennu.cli.docker; print(sorted(set(sys.modules) & {heavy!r}))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("program", ["bennu", "docker bennu"])
@pytest.mark.parametrize("word", ["", *WORDS, "rollout status"])
def test_every_word_has_help(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, program: str, word: str
) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere/s")  # else the plugin asks the docker command for it
    assert run_words([*word.split(), "--help"], program) == 0
    assert capsys.readouterr().out.startswith(f"Usage: {program} {word}".rstrip())


@pytest.mark.parametrize(
    ("line", "code", "complaint"),
    [
        ("-H unix:///nowhere/s why x", 1, "Cannot connect to the Bennu daemon at unix:///nowhere/s"),
        ("-H unix:///nowhere/s why x", 1, "sudo bennud"),
        ("-H ftp://x why x", 1, "unable to parse docker host `ftp://x`"),
        ("-H tcp://x:port why x", 1, "unable to parse docker host `tcp://x:port`"),
        ("-H 127.0.0.1:1 why x", 1, "Cannot connect to the Bennu daemon at tcp://127.0.0.1:1: connection refused"),
        ("why", 2, "Missing argument"),
        ("why --bogus x", 2, "No such option"),
        ("rollout rollback web", 2, "--to"),
        ("rollout bogus web", 2, "No such command"),
        ("restart web", 2, "--now"),
        ("demo --pace slow", 2, "--pace"),
    ],
)
def test_a_line_that_makes_no_sense_is_refused_with_its_code(
    capsys: pytest.CaptureFixture[str], line: str, code: int, complaint: str
) -> None:
    assert run_words(shlex.split(line), "bennu") == code
    assert complaint in capsys.readouterr().err


def test_the_plugin_says_what_it_is() -> None:
    argv = [PROGRAMS / "docker-bennu", "docker-cli-plugin-metadata"]
    said = json.loads(subprocess.run(argv, capture_output=True, check=True, env=dict(os.environ)).stdout)
    assert said["SchemaVersion"] == "0.1.0"
    assert said["Vendor"] and said["ShortDescription"]


def test_a_context_of_dockers_brings_its_certificates() -> None:
    found = {
        "Endpoints": {"docker": {"Host": "tcp://far:2376", "SkipTLSVerify": False}},
        "TLSMaterial": {"docker": ["ca.pem", "cert.pem", "key.pem"]},
        "Storage": {"TLSPath": "/home/a/.docker/contexts/tls/1"},
    }
    client = open_context(found)
    assert client.host == "tcp://far:2376"
    assert client.tls is not None and client.tls.verify
    assert client.tls.certificate == Path("/home/a/.docker/contexts/tls/1/docker/cert.pem")
    assert open_context({**found, "TLSMaterial": {}}).tls is None
