import asyncio
from pathlib import Path

import pytest

from bennu.kernel.inotify import FileChanges, FolderWatch

SOON_S = 5.0


def instances() -> int:
    links = [str(entry.readlink()) for entry in Path("/proc/self/fd").iterdir() if entry.is_symlink()]
    return links.count("anon_inode:inotify")


async def test_each_of_many_watched_files_wakes_its_own_watcher(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    one.touch(), other.touch()
    changes = FileChanges()
    with changes.watched(one) as one_changed, changes.watched(other) as other_changed:
        assert instances() == 1
        one.write_text("x")
        await asyncio.wait_for(one_changed.wait(), SOON_S)
        assert not other_changed.is_set()
    assert instances() == 0


async def test_a_file_that_is_not_there_leaves_no_instance_open(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), FileChanges().watched(tmp_path / "missing"):
        pass
    assert instances() == 0


async def test_a_folder_tells_of_files_made_in_it(tmp_path: Path) -> None:
    with FolderWatch(tmp_path) as watch:
        waiting = asyncio.ensure_future(watch.wait_changed())
        (tmp_path / "new").touch()
        await asyncio.wait_for(waiting, SOON_S)
    assert instances() == 0
