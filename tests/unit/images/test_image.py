"""An image's configuration, and what is made of it."""

import hashlib

import pytest

from bennu.errors import InvalidParameter
from bennu.go.rfc3339 import ZERO_TIME_NS
from bennu.images.image import image_config, parse_config, parse_time
from bennu.images.removal import chain_ids


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        ("1970-01-01T00:00:01Z", 10**9),
        ("1970-01-01T00:00:00.5Z", 5 * 10**8),
        ("1970-01-01T01:00:00.000000001+01:00", 1),
        ("0001-01-01T00:00:00Z", ZERO_TIME_NS),
        ("soon", ZERO_TIME_NS),
        (None, ZERO_TIME_NS),
    ],
)
def test_times_of_configurations_are_read_exactly(text: object, ns: int) -> None:
    assert parse_time(text) == ns


def test_a_chain_id_names_a_layer_in_its_place() -> None:
    first, second = "sha256:" + "1" * 64, "sha256:" + "2" * 64
    chains = chain_ids([first, second])
    assert chains[0] == first
    joined = f"{first} {second}".encode()
    assert chains[1] == "sha256:" + hashlib.sha256(joined).hexdigest()
    assert chain_ids([first]) == [first] and chain_ids([]) == []
    assert chains[1] != chain_ids([second, first])[1]


@pytest.mark.parametrize(
    "blob",
    [b"", b"[]", b"{", b'{"rootfs": {"diff_ids": "x"}}', b'{"rootfs": {"diff_ids": ["../../etc"]}}', b'{"rootfs": 3}'],
)
def test_a_configuration_that_cannot_be_relied_on_is_refused(blob: bytes) -> None:
    with pytest.raises(InvalidParameter, match="invalid image configuration"):
        parse_config(blob)


def test_nulls_in_a_configuration_are_as_good_as_absent() -> None:
    config = image_config(
        {
            "config": {
                "Cmd": None,
                "Env": None,
                "Entrypoint": "x",
                "Volumes": {"/v": None},
                "Healthcheck": {"Test": None},
            }
        }
    )
    assert (config.cmd, config.entrypoint, config.volumes) == (None, ["x"], {"/v": {}})
