"""What can be told of a container's record that cannot be read as a whole."""

import msgspec
import pytest

from bennu.engine.record import Record
from bennu.engine.remains import Remains, parse_remains
from bennu.engine.stored_record import encode_record
from bennu.lifecycle.life_model import Life, Run
from bennu.model import ContainerConfig, HostConfig, MountPoint
from bennu.network import Sandbox

POINTS = [
    MountPoint(type="volume", name="kept", source="/v", destination="/a"),
    MountPoint(type="bind", source="/srv", destination="/b"),
    MountPoint(type="image", name="i", source="sha256:2", destination="/c"),
]
SANDBOX = Sandbox(sandbox_id="s", netns="/run/n")
RECORD = Record(
    id="c",
    name="n",
    created_ns=1,
    image_id="sha256:1",
    path="/bin/true",
    args=[],
    config=ContainerConfig(),
    host_config=HostConfig(),
    endpoints={},
    mounts=POINTS,
    sandbox=SANDBOX,
    life=Life(run=Run(boot_id="this boot")),
)
WHOLE = Remains("n", "sha256:1", frozenset({"kept"}), SANDBOX, frozenset({"sha256:2"}))


def spoiled(field: str) -> bytes:
    record = msgspec.json.decode(encode_record(RECORD))
    return msgspec.json.encode({**record, field: {"another": ["shape"]}})


def test_all_is_told_of_a_record_that_only_another_field_spoils() -> None:
    assert parse_remains(spoiled("life"), "this boot") == WHOLE


@pytest.mark.parametrize("field", ["name", "image_id", "mounts", "sandbox"])
def test_a_damaged_field_takes_no_other_with_it(field: str) -> None:
    empty = {"name": "", "image_id": "", "mounts": frozenset(), "sandbox": None}[field]
    name = "volumes" if field == "mounts" else field
    found = parse_remains(spoiled(field), "this boot")
    assert {one: getattr(found, one) for one in ("name", "image_id", "volumes", "sandbox")} == {
        one: empty if one == name else getattr(WHOLE, one) for one in ("name", "image_id", "volumes", "sandbox")
    }


def test_a_sandbox_of_an_earlier_boot_is_none() -> None:
    assert parse_remains(spoiled("life"), "the next boot").sandbox is None


@pytest.mark.parametrize("value", [b"", b"[1]", b"{", b"7", b"[" * 100_000])
def test_what_is_no_record_tells_nothing(value: bytes) -> None:
    assert parse_remains(value, "this boot") == Remains()
