"""Devices that CDI files describe, in a container's OCI configuration."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from bennu.errors import BennuError
from bennu.model import DeviceRequest
from bennu.runtime.cdi import inject_devices, read_cdi_devices

YAML = """
cdiVersion: "0.5.0"
kind: vendor.example/device
containerEdits:
  env: [ALL=1]
  hooks: [{hookName: createRuntime, path: /bin/hook, args: [hook, one]}]
devices:
- name: zero
  containerEdits:
    env: [PATH=/theirs]
    deviceNodes: [{path: /dev/vendor0, hostPath: /dev/zero, permissions: rw}]
- name: one
  containerEdits:
    mounts: [{hostPath: /opt/lib, containerPath: /usr/lib/vendor, options: [ro, nosuid, bind]}]
    additionalGids: [44, 44, 0]
"""


def bare() -> dict[str, Any]:
    return {
        "process": {"env": ["PATH=/ours", "A=1"], "user": {"uid": 0, "gid": 0, "additionalGids": [7]}},
        "mounts": [{"destination": "/proc", "type": "proc", "source": "proc", "options": []}],
        "linux": {"resources": {"devices": []}},
    }


def ask(*names: str) -> list[DeviceRequest]:
    return [DeviceRequest(driver="cdi", device_ids=list(names))]


def test_a_device_changes_what_its_file_says(tmp_path: Path) -> None:
    (tmp_path / "vendor.yaml").write_text(YAML)
    spec = bare()
    inject_devices(spec, ask("vendor.example/device=zero", "vendor.example/device=one"), [str(tmp_path)])
    assert spec["process"]["env"] == ["A=1", "ALL=1", "PATH=/theirs"]
    assert spec["process"]["user"]["additionalGids"] == [7, 44]
    assert spec["linux"]["devices"] == [
        {"path": "/dev/vendor0", "type": "c", "major": 1, "minor": 5, "fileMode": 0o666}
    ]
    assert spec["linux"]["resources"]["devices"] == [
        {"allow": True, "type": "c", "major": 1, "minor": 5, "access": "rw"}
    ]
    assert spec["mounts"][-1] == {
        "destination": "/usr/lib/vendor",
        "type": "bind",
        "source": "/opt/lib",
        "options": ["ro", "nosuid", "bind"],
    }
    assert spec["hooks"] == {"createRuntime": [{"path": "/bin/hook", "args": ["hook", "one"]}]}


def test_the_last_folder_is_right_and_a_broken_file_hides_no_other(tmp_path: Path) -> None:
    for number, folder in enumerate(("a", "b")):
        (tmp_path / folder).mkdir()
        device = {"name": "x", "containerEdits": {"env": [f"FROM={number}"]}}
        (tmp_path / folder / "v.json").write_text(json.dumps({"kind": "v.example/d", "devices": [device]}))
        (tmp_path / folder / "broken.json").write_text("{")
        os.mkfifo(tmp_path / folder / "pipe.json")
        (tmp_path / folder / "endless.json").symlink_to("/dev/zero")
    folders = [str(tmp_path / "a"), str(tmp_path / "b"), str(tmp_path / "absent")]
    spec = bare()
    inject_devices(spec, ask("v.example/d=x"), folders)
    assert "FROM=1" in spec["process"]["env"]
    (tmp_path / "b/again.json").write_bytes((tmp_path / "b/v.json").read_bytes())
    assert not read_cdi_devices(folders)  # twice in one folder: nobody knows which is meant


@pytest.mark.parametrize(
    ("requests", "words"),
    [
        (
            [DeviceRequest(count=-1, capabilities=[["gpu"]])],
            'could not select device driver "" with capabilities: [[gpu]]',
        ),
        (
            [DeviceRequest(driver="nvidia", capabilities=[["gpu", "compute"], ["utility"]])],
            'could not select device driver "nvidia" with capabilities: [[gpu compute] [utility]]',
        ),
        (ask("v.example/d=x", "v.example/d=y"), "unresolvable CDI devices v.example/d=x, v.example/d=y"),
        ([DeviceRequest(driver="cdi", count=1)], "unexpected count in CDI device request"),
        ([DeviceRequest(driver="cdi", options={"a": "b"})], "unexpected options in CDI device request"),
    ],
)
def test_what_cannot_be_had_is_told_in_dockers_words(tmp_path: Path, requests: list[DeviceRequest], words: str) -> None:
    with pytest.raises(BennuError) as refused:
        inject_devices(bare(), requests, [str(tmp_path)])
    assert words in str(refused.value)
