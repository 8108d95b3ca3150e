"""Repair of the database, made anew or completed from the files beside it: `bennu doctor --repair`.

Nothing is deleted: an unusable database and unreadable folders are put into `lost/`. Usable contents of `lost/` come
back. Containers that run are taken up as they run.
"""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from msgspec.structs import replace

from bennu.engine.copies import CONTAINERS, FAMILIES, is_cut_short, path_of, read_copies
from bennu.engine.orphans import read_record
from bennu.engine.record import Record
from bennu.engine.recovery import read_boot_id
from bennu.engine.remains import parse_remains
from bennu.engine.stored_record import encode_record
from bennu.files import set_aside
from bennu.images.salvage import find_images, put_back
from bennu.lifecycle.status import State
from bennu.runtime import find_living
from bennu.store import Put, Transaction, aside, judge, mark_of, open_sqlite, put_database_aside, read_what_is_left


@dataclass(slots=True)
class Repair:
    """One repair; `told` holds the report for its operator, a line each."""

    data_root: Path
    exec_root: Path
    records: dict[str, bytes] = field(default_factory=dict)  # what the database is to have, by key
    told: list[str] = field(default_factory=list)

    @property
    def lost(self) -> Path:
        return self.data_root / "lost"


async def repair(data_root: Path, exec_root: Path) -> list[str]:
    """Repair the database and report each action.

    The caller holds the lock on both roots. Raises: BennuError, OSError; a repeated call continues the repair.
    """
    work = Repair(data_root, exec_root)
    database = data_root / "state.db"
    wrong = judge(database)
    if wrong:
        _begin_anew(work, database, wrong)
    else:
        work.records = {put.key: put.value for put in read_what_is_left(database)}
    before = dict(work.records) if not wrong else {}
    _take_lost_records(work)
    _find_images(work)
    _find_containers(work)
    added = [Put(key, value) for key, value in work.records.items() if before.get(key) != value]
    if added:
        async with open_sqlite(database) as store:
            await store.commit(Transaction(added))
    if wrong:  # nothing proves that this is all there was, so nothing may be deleted for being unknown
        mark_of(database).unlink(missing_ok=True)
    return work.told or ["Nothing was missing."]


def _begin_anew(work: Repair, database: Path, wrong: str) -> None:
    """Make a new database with the records from their copies.

    A kind of record without any copies is read from the old database, as far as that can be read.
    """
    work.told.append(f"{wrong[0].upper()}{wrong[1:]}.")
    former = put_database_aside(database, work.lost)
    if any(former.parent.iterdir()):
        work.told.append(f"It is kept in {former.parent}.")
    copies = {key: value for _, key, value in read_copies(work.data_root)}
    has_copies = (work.data_root / "records").exists()
    history = 0
    for put in read_what_is_left(former):
        if not put.key.startswith(FAMILIES):
            work.records[put.key] = put.value
            history += 1
        elif not has_copies and (not put.key.startswith(CONTAINERS) or (work.data_root / put.key).exists()):
            work.records[put.key] = put.value
    work.records |= copies
    work.told.append(f"Brought back {len(copies)} records of images, networks, volumes and services.")
    work.told.append(f"Of events and death certificates {history} could still be read.")


def _take_lost_records(work: Repair) -> None:
    for path, key, value in list(read_copies(work.lost)):
        if key not in work.records:
            work.records[key] = value
            work.told.append(f"Brought back the record {key}.")
            path.rename(path_of(work.data_root, key))


def _find_images(work: Repair) -> None:
    count = put_back(work.data_root / "images", work.lost)
    if count:
        work.told.append(f"Brought back {count} layers and blobs of images.")
    for put in find_images(work.data_root / "images"):
        if put.key not in work.records:
            work.records[put.key] = put.value
            work.told.append(f"Found an image whose name is not known: {put.key.rpartition('/')[2][:12]}.")


def _find_containers(work: Repair) -> None:
    living = find_living(work.exec_root)
    names = {_name_in(value) for key, value in work.records.items() if key.startswith(CONTAINERS)}
    for folder, record in _unknown_containers(work):
        if record is None:
            place = set_aside(folder, work.lost / "containers")
            work.told.append(f"The folder of container {folder.name[:12]} has no record in it: it lies in {place}.")
            continue
        if record.name in names:
            record = replace(record, name=f"{record.name}-{record.id[:12]}")
        names.add(record.name)
        home = work.data_root / CONTAINERS / record.id
        if folder != home:
            folder.rename(home)
        pid = living.get(record.id, 0)
        if pid and not record.pid:  # its start was not copied any more
            life = record.life
            run = dataclasses.replace(life.run, pid=pid, boot_id=read_boot_id())
            record = replace(record, life=dataclasses.replace(life, state=State.RUNNING, run=run))
        work.records[f"{CONTAINERS}{record.id}"] = encode_record(record)
        work.told.append(f"Brought back container {record.name}{', which runs' if pid else ''}.")


def _unknown_containers(work: Repair) -> Iterator[tuple[Path, Record | None]]:
    """Iterate over the folders without a record, each with the record inside it.

    Folders in `lost` without a readable record stay there.
    """
    there, lost = work.data_root / "containers", work.lost / "containers"
    for folder in sorted(there.iterdir()) if there.exists() else ():
        key = f"{CONTAINERS}{folder.name}"
        is_known = key in work.records or aside.PREFIX + key in work.records
        if not is_known and not is_cut_short(folder):
            yield folder, read_record(folder)
    for folder in sorted(lost.iterdir()) if lost.exists() else ():
        record = read_record(folder)
        if record is not None and not (there / record.id).exists():
            there.mkdir(mode=0o710, exist_ok=True)
            yield folder, record


def _name_in(value: bytes) -> str:
    """Read the name in a record; "" if it cannot be read: the next bennud sets that record aside."""
    return parse_remains(value, boot_id="").name
