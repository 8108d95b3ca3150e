"""Device nodes that a client names."""

import subprocess
from pathlib import Path

import pytest

from bennu.model import Device
from bennu.runtime import RuntimeFailure
from bennu.runtime.devices import read_devices


def test_a_device_without_a_path_is_not_the_folder_of_the_daemon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "null").symlink_to("/dev/null")
    monkeypatch.chdir(tmp_path)
    words = 'error gathering device information while adding custom device "": no such file or directory'
    with pytest.raises(RuntimeFailure, match=words):
        read_devices([Device(path_on_host="")])


def test_a_folder_deeper_than_any_recursion_is_looked_through(tmp_path: Path) -> None:
    top = place = tmp_path / "top"
    for _ in range(1200):
        place.mkdir()
        place = place / "a"
    try:
        with pytest.raises(RuntimeFailure, match="not a device node"):
            read_devices([Device(path_on_host=str(top))])
    finally:
        subprocess.run(["rm", "-r", top], check=True)  # pytest cannot
