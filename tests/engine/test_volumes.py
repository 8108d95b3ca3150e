"""Volumes on a real machine: options that are mounted, what a volume measures, and new ones filled from the image.

Root's, because mounts are, and because only the helper that shuts itself in reads what containers left in a volume.
"""

import asyncio
import ctypes
import os
import stat
import subprocess
import threading
from collections import Counter
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from bennu.confined.client import Failure
from bennu.confined.tree import resolve
from bennu.errors import BennuError, InvalidParameter
from bennu.kernel.libc import unmount
from bennu.store import open_sqlite
from bennu.volumes import Volume, Volumes
from bennu.volumes.copyup import copy_up, needs_filling
from bennu.volumes.mounting import is_mounted
from bennu.volumes.subpath import mount_beneath
from support.volume_users import Users

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounts, and the helper that reads volumes, need root")


@pytest.fixture
def users() -> Users:
    return Users()


@pytest.fixture
async def volumes(tmp_path: Path, users: Users) -> AsyncIterator[Volumes]:
    async with open_sqlite(tmp_path / "state.db") as store:
        opened = Volumes(tmp_path / "volumes", store, users)
        await opened.open()
        yield opened


def data(volume: Volume) -> Path:
    return Path(volume.mountpoint)


async def test_prune_takes_unused_ones_that_are_wanted(volumes: Volumes, users: Users) -> None:
    used, anonymous, named = await volumes.create(""), await volumes.create(""), await volumes.create("named")
    (data(anonymous) / "file").write_bytes(b"12345")
    (data(anonymous) / "link").hardlink_to(data(anonymous) / "file")
    users.of[used.name] = ["c"]
    assert await volumes.prune(lambda volume: volume.anonymous) == ([anonymous.name], 5)
    assert {volume.name for volume in volumes.list()} == {used.name, named.name}


async def test_options_are_mounted_while_used(volumes: Volumes, users: Users) -> None:
    options = {"type": "tmpfs", "device": "tmpfs", "o": "size=64k,uid=1000"}
    volume = await volumes.create("ram", options=options)
    await volumes.mount("ram", "user")
    try:
        await volumes.mount("ram", "user")
        assert is_mounted(volume.mountpoint) and data(volume).stat().st_uid == 1000
        users.of["ram"] = ["other"]
        await volumes.unmount_unused("ram", "user")
        assert is_mounted(volume.mountpoint)
    finally:
        users.of["ram"] = []
        await volumes.unmount_unused("ram", "user")
    assert not is_mounted(volume.mountpoint)
    await volumes.unmount_unused("ram", "user")


async def test_who_is_done_with_a_volume_takes_it_from_nobody_who_is_about_to_use_it(volumes: Volumes) -> None:
    volume = await volumes.create("ram", options={"type": "tmpfs", "device": "tmpfs", "o": "size=64k"})
    await volumes.mount("ram", "a container that starts")
    await volumes.mount("ram", "a copy")
    await volumes.unmount_unused("ram", "a copy")
    assert is_mounted(volume.mountpoint)
    await volumes.unmount_unused("ram", "a container that starts")
    assert not is_mounted(volume.mountpoint)


async def test_removing_a_mounted_bind_leaves_what_it_showed(volumes: Volumes, tmp_path: Path) -> None:
    elsewhere = tmp_path / "else where"
    elsewhere.mkdir()
    (elsewhere / "file").touch()
    volume = await volumes.create("bound", options={"type": "none", "device": str(elsewhere), "o": "bind"})
    await volumes.mount("bound", "user")
    assert (data(volume) / "file").exists()
    await volumes.remove("bound")
    assert (elsewhere / "file").exists()
    assert not is_mounted(volume.mountpoint)


async def test_a_mount_that_fails_says_why(volumes: Volumes) -> None:
    volume = await volumes.create("bad", options={"type": "none", "device": "/nowhere", "o": "bind"})
    with pytest.raises(BennuError) as caught:
        await volumes.mount("bad", "user")
    text = str(caught.value)
    assert text.startswith(
        f"error while mounting volume '{volume.mountpoint}': failed to mount local volume: mount /now"
    )
    assert "does not exist" in text or "No such file" in text


# --- filling from the image -------------------------------------------------------------------------------------


@pytest.fixture
def rootfs(tmp_path: Path) -> Path:
    made = tmp_path / "rootfs"
    made.mkdir()
    return made


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    made = tmp_path / "vol" / "_data"
    made.mkdir(parents=True)
    return made


def test_a_copy_keeps_owners_modes_times_links_and_attributes(rootfs: Path, volume: Path) -> None:
    source = rootfs / "var" / "lib" / "db"
    (source / "sub").mkdir(parents=True)
    (source / "file").write_text("text")
    (source / "twin").hardlink_to(source / "file")
    (source / "link").symlink_to("/etc/passwd")
    os.mkfifo(source / "fifo")
    os.chown(source / "file", 12, 34)
    (source / "file").chmod(0o4750)
    os.chown(source / "link", 5, 6, follow_symlinks=False)
    os.chown(source, 99, 98)
    source.chmod(0o1777)
    os.utime(source / "file", ns=(10**18, 10**18 + 1))
    os.utime(source / "sub", ns=(10**18, 10**18 + 2))
    attributes = _set_attribute(source / "file")
    asyncio.run(copy_up(rootfs, "/var/lib/db", volume))
    copied = (volume / "file").stat()
    assert (copied.st_uid, copied.st_gid, stat.S_IMODE(copied.st_mode)) == (12, 34, 0o4750)
    assert copied.st_mtime_ns == 10**18 + 1
    assert (volume / "sub").stat().st_mtime_ns == 10**18 + 2
    assert copied.st_ino == (volume / "twin").stat().st_ino
    assert (volume / "link").readlink() == Path("/etc/passwd") and (volume / "link").lstat().st_uid == 5
    assert stat.S_ISFIFO((volume / "fifo").stat().st_mode)
    assert (volume.stat().st_uid, volume.stat().st_gid, stat.S_IMODE(volume.stat().st_mode)) == (99, 98, 0o1777)
    assert not attributes or os.getxattr(volume / "file", "trusted.kind") == b"rare"


def _set_attribute(path: Path) -> bool:
    try:
        os.setxattr(path, "trusted.kind", b"rare")
    except OSError:
        return False
    return True


def test_a_volume_that_holds_something_is_left_alone(rootfs: Path, volume: Path) -> None:
    (rootfs / "d").mkdir()
    (rootfs / "d" / "new").touch()
    (volume / "mine").touch()
    asyncio.run(copy_up(rootfs, "/d", volume))
    assert [path.name for path in volume.iterdir()] == ["mine"]


def test_what_is_no_folder_or_not_there_fills_nothing(rootfs: Path, volume: Path) -> None:
    (rootfs / "file").touch()
    asyncio.run(copy_up(rootfs, "/file", volume))
    asyncio.run(copy_up(rootfs, "/absent/deep", volume))
    assert list(volume.iterdir()) == []


def test_links_are_followed_inside_the_root_filesystem_only(rootfs: Path, volume: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "key").touch()
    (rootfs / "run").mkdir()
    (rootfs / "run" / "inside").touch()
    (rootfs / "var").symlink_to("/run")
    (rootfs / "out").symlink_to(secret)
    (rootfs / "up").symlink_to("../../../../" + str(secret))
    (rootfs / "loop").symlink_to("loop")
    for target in ("/out", "/up", "/loop", "/../../" + str(secret)):
        asyncio.run(copy_up(rootfs, target, volume))
        assert list(volume.iterdir()) == []
    assert resolve(str(rootfs), "/out/../var/inside") is None
    assert resolve(str(rootfs), "/var/inside") == "run/inside"
    asyncio.run(copy_up(rootfs, "/var", volume))
    assert [path.name for path in volume.iterdir()] == ["inside"]


def test_a_copy_that_fails_leaves_the_volume_empty(rootfs: Path, volume: Path) -> None:
    (rootfs / "d/sub").mkdir(parents=True)
    for number in range(3):
        (rootfs / "d" / f"{number}").write_bytes(b"x" * 300_000)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", volume], check=True)
    try:
        with pytest.raises(Failure, match="no space left on device"):
            asyncio.run(copy_up(rootfs, "/d", volume))
        assert list(volume.iterdir()) == [] and [path.name for path in volume.parent.iterdir()] == ["_data"]
    finally:
        subprocess.run(["umount", volume], check=True)


def test_who_uses_a_volume_sees_it_filled_and_keeps_what_is_his(rootfs: Path, volume: Path) -> None:
    (rootfs / "d").mkdir()
    (rootfs / "d/file").write_text("of the image")
    folder = os.open(volume, os.O_RDONLY | os.O_DIRECTORY)
    try:
        asyncio.run(copy_up(rootfs, "/d", volume))
        assert [entry.name for entry in os.scandir(folder)] == ["file"]
        Path(f"/proc/self/fd/{folder}/mine").touch()
        assert (volume / "mine").exists()
    finally:
        os.close(folder)


def test_filling_that_was_cut_short_is_finished_by_the_next(rootfs: Path, volume: Path) -> None:
    (rootfs / "d/sub").mkdir(parents=True)
    for name in ("a", "b", "sub/c"):
        (rootfs / "d" / name).write_text("of the image")
    (volume / "a").write_text("changed since")
    (volume / ".bennu-filling").write_text("of the im")
    volume.with_name(".filling").touch()
    assert needs_filling(volume)
    asyncio.run(copy_up(rootfs, "/d", volume))
    texts = {str(path.relative_to(volume)): path.read_text() for path in volume.rglob("*") if path.is_file()}
    assert texts == {"a": "changed since", "b": "of the image", "sub/c": "of the image"}
    assert not needs_filling(volume)


def test_deep_folders_are_no_problem(rootfs: Path, volume: Path) -> None:
    deep = rootfs / "d"
    for _ in range(600):
        deep = deep / "x"
    subprocess.run(["mkdir", "-p", deep], check=True)
    asyncio.run(copy_up(rootfs, "/d", volume))
    assert (volume / deep.relative_to(rootfs / "d")).is_dir()


def test_who_swaps_folders_for_links_never_leads_out_of_the_volume(tmp_path: Path) -> None:
    volume, secret, place = tmp_path / "volume", tmp_path / "secret", tmp_path / "place"
    for folder in (volume / "part", secret):
        folder.mkdir(parents=True)
    (volume / "part" / "ours").touch()
    (volume / "link").symlink_to(secret)
    ended = threading.Event()

    def swap() -> None:
        while not ended.is_set():
            exchange(volume / "part", volume / "link")

    seen = Counter[str]()
    with ThreadPoolExecutor(1) as pool:
        swapping = pool.submit(swap)
        try:
            while seen.total() < 400 or not (seen["ours"] and seen["refused"]):
                assert seen.total() < 20_000, seen
                try:
                    mount_beneath(volume, "part", place)
                except InvalidParameter:
                    seen["refused"] += 1
                    continue
                seen["ours" if (place / "ours").exists() else "led out"] += 1
                unmount(place)
                place.rmdir()
        finally:
            ended.set()
        swapping.result()
    assert seen["led out"] == 0, seen


def exchange(one: Path, other: Path) -> None:
    """Let two names change places at one instant (renameat2(2))."""
    at_fdcwd, rename_exchange = -100, 2
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.renameat2(at_fdcwd, os.fsencode(one), at_fdcwd, os.fsencode(other), rename_exchange) == 0
