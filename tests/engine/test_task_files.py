"""Secrets and configs of a task on the host: whatever they are called, their files are in the task's own folder."""

import os
import stat
from pathlib import Path

import pytest

from bennu.cluster.api_types import FileTarget
from bennu.cluster.task_files import _write_all

CALLED = [
    "/run/secrets/plain",
    "/run/secrets/../../../../../../../..{outside}/up",
    "{outside}/absolute",
    "/run/secrets/",
    "/run/secrets/a\nb",
    "/" + "x" * 5000,
]


@pytest.mark.skipif(os.geteuid() != 0, reason="gives files to others")
def test_a_name_is_a_place_in_the_container_and_none_on_the_host(tmp_path: Path) -> None:
    folder, outside = tmp_path / "task", tmp_path / "outside"
    outside.mkdir()
    wanted = [
        (name.format(outside=outside), FileTarget(name=name, uid="65534", gid="7", mode=0o400), f"{number}".encode())
        for number, name in enumerate(CALLED)
    ]
    mounts = _write_all(folder, wanted)
    assert os.listdir(outside) == []  # noqa: PTH208
    assert sorted(path.name for path in folder.iterdir()) == sorted(str(number) for number in range(len(CALLED)))
    for (target, _, data), mount in zip(wanted, mounts, strict=True):
        path = Path(mount.source)
        found = path.lstat()
        assert (mount.target, mount.read_only, path.parent, path.read_bytes()) == (target, True, folder, data)
        assert (stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid) == (0o400, 65534, 7)
