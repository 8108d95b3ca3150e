"""The copy of a record in a container's folder."""

from pathlib import Path

import pytest

from bennu.engine.copies import COPY
from bennu.engine.orphans import read_record
from bennu.engine.record import Record
from bennu.engine.stored_record import encode_record
from bennu.model import ContainerConfig, HostConfig


@pytest.mark.parametrize(
    ("folder", "is_its_own"), [("c0ffee", True), ("c0ffee.1", True), ("decade", False), ("c0ffee0", False)]
)
def test_only_its_own_record_makes_a_folder_a_container(tmp_path: Path, folder: str, is_its_own: bool) -> None:
    record = Record(
        id="c0ffee",
        name="n",
        created_ns=1,
        image_id="sha256:1",
        path="/bin/true",
        args=[],
        config=ContainerConfig(),
        host_config=HostConfig(),
        endpoints={},
        mounts=[],
    )
    (tmp_path / folder).mkdir()
    (tmp_path / folder / COPY).write_bytes(encode_record(record))
    assert (read_record(tmp_path / folder) is not None) == is_its_own
