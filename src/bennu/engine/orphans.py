"""Clean-up of containers without a record: interrupted ones are taken away, everything else is kept.

Absence proves nothing, for a record may have been lost. So only a container with a mark of its own (`copies`) is
deleted; a whole folder is put aside in `lost/`, and a running container is left running. `bennu doctor --repair` brings
both back.
"""

import asyncio
import logging
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import msgspec

from bennu.engine.context import EngineContext
from bennu.engine.copies import COPY, is_cut_short
from bennu.engine.record import Record
from bennu.engine.stored_record import decode_record
from bennu.errors import BennuError, Unavailable
from bennu.files import set_aside
from bennu.network import Sandbox
from bennu.runtime import find_living
from bennu.store import cure, has_database

CURE: Final = "`bennu doctor --repair`, with bennud stopped, brings it back"
log = logging.getLogger(__name__)


def check_data_is_there(data_root: Path, exec_root: Path) -> None:
    """Check that a missing database means a new engine: no files of an old one are left and none of its containers run.

    Raises: Unavailable with the cure.
    """
    database = data_root / "state.db"
    if has_database(database):
        return
    for kind in ("containers", "images/layers", "volumes", "records"):
        if (data_root / kind).exists() and any((data_root / kind).iterdir()):
            raise Unavailable(f"the state in {database} is missing, but there is {data_root / kind}. {cure(database)}")
    if living := find_living(exec_root):
        pids = " ".join(str(pid) for pid in living.values())
        raise Unavailable(
            f"{data_root} is empty, but containers that belong to it run ({exec_root}). Is its disk mounted? "
            f"Mount it and start bennud again; if it is gone for good, end these containers first: kill {pids}"
        )


def read_record(folder: Path) -> Record | None:
    """Read a container's record from its folder; None: it cannot be read, or belongs to another container."""
    try:
        record = decode_record((folder / COPY).read_bytes())
    except (OSError, msgspec.DecodeError, ValueError):
        return None
    return record if folder.name.partition(".")[0] == record.id else None  # what is put aside may bear a number


def unknown_sandboxes(services: EngineContext, known: Iterable[str]) -> dict[str, Sandbox]:
    """Collect, by id, the sandboxes of running containers without a record; they must not be lent out or taken away."""
    found = {}
    for container_id in set(services.runtime.bundles.ids()).difference(known):
        record = read_record(services.folder(container_id))
        if record is not None and record.sandbox is not None and services.runtime.observer.recover(container_id).pid:
            found[container_id] = record.sandbox
    return found


async def clear_orphans(services: EngineContext, known: set[str]) -> None:
    """Clear the containers without a record.

    Folders of interrupted creations and removals are deleted, whole folders are put aside, and running containers are
    left alone and logged.
    """
    parent = services.data_root / "containers"
    await asyncio.to_thread(parent.mkdir, 0o710, True, True)
    folders = {folder.name: folder for folder in await asyncio.to_thread(lambda: list(parent.iterdir()))}
    cut_short = {name for name in folders.keys() - known if is_cut_short(folders[name])}
    await services.volumes.sweep(cut_short)  # first: the marks tell it what to sweep
    for container_id in sorted({*folders, *services.runtime.bundles.ids()} - known):
        try:
            if container_id in cut_short:
                await _clear(services, folders[container_id])
            elif services.runtime.observer.recover(container_id).pid:
                log.warning("container %s runs and is on no record: left as it is; %s", container_id[:12], CURE)
            elif container_id in folders:
                await _put_aside(services, folders[container_id])
        except (BennuError, OSError) as error:
            log.warning("container %s, which is on no record, was left where it is: %s", container_id[:12], error)


async def _clear(services: EngineContext, folder: Path) -> None:
    await services.runtime.delete(folder.name)
    await services.images.remove_upper(folder)
    await asyncio.to_thread(shutil.rmtree, folder, True)


async def _put_aside(services: EngineContext, folder: Path) -> None:
    await services.images.unmount(folder)
    place = await asyncio.to_thread(set_aside, folder, services.data_root / "lost/containers")
    log.warning("container %s is on no record and lies in %s now; %s", folder.name[:12], place, CURE)
