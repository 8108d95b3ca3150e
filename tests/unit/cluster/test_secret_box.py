"""Secrets stay shut: sealed, opened, and whatever was changed in between is noticed."""

from pathlib import Path

import pytest

from bennu.cluster.secret_box import MARK, SecretBox
from bennu.cluster.secret_store import SecretStore
from bennu.cluster.state import Change, open_state
from bennu.cluster.tables import BlobRow, ClusterRow
from bennu.engine.events import Journal
from bennu.errors import BennuError
from bennu.store import open_sqlite


def test_a_secret_is_sealed_and_opened_and_any_change_is_noticed(tmp_path: Path) -> None:
    box = SecretBox(tmp_path / "key")
    sealed = box.seal(b"open sesame")
    assert SecretBox(tmp_path / "key").open(sealed) == b"open sesame"
    assert box.seal(b"open sesame") != sealed
    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600
    last = len(MARK)
    broken = sealed[:last] + ("B" if sealed[last] == "A" else "A") + sealed[last + 1 :]
    for wrong in (broken, MARK, MARK + "AAAA"):
        with pytest.raises(BennuError, match="cannot be opened"):
            box.open(wrong)
    with pytest.raises(BennuError, match="cannot be opened"):
        SecretBox(tmp_path / "other").open(sealed)


# "open sesame" under the key 00 01 … 1f, as it was sealed before AES-256-GCM.
OLD_BLOB = "QSA896R7UPa79o5hYQ4zicRr5QaebXzpkfIrDoP9cPpPxfP9K0My8WumMjfyY5P2dCaTwEkfcWphu5clBK27V+tsFQ=="


@pytest.fixture
def old_box(tmp_path: Path) -> SecretBox:
    (tmp_path / "key").write_bytes(bytes(range(32)))
    return SecretBox(tmp_path / "key")


def test_a_secret_sealed_the_old_way_is_read_and_its_changes_are_noticed(old_box: SecretBox, tmp_path: Path) -> None:
    assert old_box.open(OLD_BLOB) == b"open sesame"
    for wrong in ("R" + OLD_BLOB[1:], "", "QSA8"):
        with pytest.raises(BennuError, match="cannot be opened"):
            old_box.open(wrong)
    with pytest.raises(BennuError, match="cannot be opened"):
        SecretBox(tmp_path / "other").open(OLD_BLOB)


async def test_a_secret_sealed_the_old_way_is_sealed_anew_when_its_row_is_written(
    old_box: SecretBox, tmp_path: Path
) -> None:
    swarm = ClusterRow(id="swarm", spec="{}", node_id="n", ca_digest="", worker_secret="", manager_secret="")
    async with open_sqlite(tmp_path / "state.db") as store:
        journal = Journal(store)
        await journal.open()
        async with open_state(store, journal) as state:
            change = Change()
            change.put(state.swarm, swarm)
            change.put(state.secrets, BlobRow(id="s", name="word", data=OLD_BLOB))
            async with state.lock:
                await state.commit(change)
            store = SecretStore("secret", state, old_box)
            await store.update("word", {"a": "b"}, store.find("word").index)
            written = store.find("word")
            assert written.labels == {"a": "b"}
            assert written.data.startswith(MARK)
            assert store.read(written) == b"open sesame"
