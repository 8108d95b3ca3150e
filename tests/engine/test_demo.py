"""A demo that is interrupted leaves nothing behind."""

import os
import re
import signal
import subprocess
from pathlib import Path

import pytest

from support import images
from support.daemon import BENNU
from support.traces import command_lines
from support.waiting import wait_for


def traces_of(demo: str) -> list[str]:
    lines = [line for _, line in command_lines() if demo in line]
    return lines + [str(path) for path in Path("/run").glob(demo)]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
@pytest.mark.parametrize(
    "moment", ["--name outlives", "kill -9"], ids=["while-a-command-runs", "while-no-daemon-lives"]
)
def test_an_interrupted_demo_leaves_nothing(able: None, tmp_path: Path, number: signal.Signals, moment: str) -> None:
    images.base_image("python")
    output = tmp_path / "output"
    with output.open("wb") as file:
        words = [BENNU, "demo", "--pace", "0.2", "6"]
        play = subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=file, stderr=file, env={**os.environ, "LC_ALL": "C"}
        )
    wait_for(lambda: moment in output.read_text(), timeout_s=90, what=moment, describe=output.read_text)
    play.send_signal(number)
    assert play.wait(60) == 128 + number, output.read_text()
    assert "Traceback" not in output.read_text()
    demo = re.search(r"answers at unix:///run/(bennu-demo-\w+)/", output.read_text())
    assert demo and not traces_of(demo[1])
