"""The messages have the numbers and kinds of BuildKit's files, whose facts are `tests/support/buildkit-messages.json`.

There: by the name of our class, the message's fields as its `.proto` file has them: number and type.
"""

import dataclasses
import inspect
import json
from pathlib import Path

import pytest

from bennu.build.wire import messages
from bennu.build.wire.protobuf import SPEC, Message

FACTS = json.loads((Path(__file__).parents[3] / "support/buildkit-messages.json").read_text())
CLASSES = {
    name: kind
    for name, kind in inspect.getmembers(messages, inspect.isclass)
    if issubclass(kind, Message) and kind is not Message and dataclasses.fields(kind)
}
KINDS = {
    "string": "text",
    "bytes": "bytes",
    "bool": "bool",
    **dict.fromkeys(("int64", "int32", "uint32", "PacketType"), "int"),
}


def kind_of(given: str) -> tuple[str, str]:
    """Answer kind and shape, as our fields name them, of a type as the files name it."""
    if given.startswith("map<"):
        return KINDS.get(given.removeprefix("map<string,").removesuffix(">"), "message"), "map"
    if given.startswith("repeated "):
        return KINDS.get(given.removeprefix("repeated "), "message"), "list"
    return KINDS.get(given, "message"), "one"


@pytest.mark.parametrize("name", sorted(CLASSES))
def test_each_field_is_the_one_of_the_published_message(name: str) -> None:
    by_number = {number: kind_of(given) for number, given in FACTS[name].values()}
    for field in dataclasses.fields(CLASSES[name]):
        spec = field.metadata[SPEC]
        assert (spec.kind, spec.shape) == by_number[spec.number], field.name


@pytest.mark.parametrize("name", sorted(CLASSES))
def test_an_empty_message_is_no_bytes_and_the_other_way_round(name: str) -> None:
    kind = CLASSES[name]
    assert kind().encode() == b""
    assert kind.decode(b"") == kind()
