import contextlib
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bennu.build.wire.messages import BytesMessage, ControlSolveRequest, Definition, Packet, Stat, VertexRecord
from bennu.build.wire.protobuf import (
    Malformed,
    Message,
    flag,
    many,
    map_of,
    number,
    one,
    put_varint,
    raw,
    raw_map,
    read_varint,
    text,
    text_map,
    texts,
)


@dataclass(slots=True)
class Leaf(Message):
    count: int = number(1)
    name: str = text(2)


@dataclass(slots=True)
class Tree(Message):
    leaf: Leaf | None = one(1, lambda: Leaf)
    leaves: list[Leaf] = many(2, lambda: Leaf)
    labels: dict[str, str] = text_map(3)
    files: dict[str, bytes] = raw_map(4)
    by_name: dict[str, Leaf] = map_of(5, lambda: Leaf)
    words: list[str] = texts(6)
    data: bytes = raw(17)
    yes: bool = flag(300)


@dataclass(slots=True)
class Nested(Message):
    inner: "Nested | None" = one(1, lambda: Nested)


TEXT = st.text(alphabet=st.characters(exclude_categories=("Cs",)), max_size=20)
LEAVES = st.builds(Leaf, st.integers(-(2**63), 2**63 - 1), TEXT)
TREES = st.builds(
    Tree,
    st.none() | LEAVES,
    st.lists(LEAVES, max_size=4),
    st.dictionaries(TEXT, TEXT, max_size=4),
    st.dictionaries(TEXT, st.binary(max_size=10), max_size=4),
    st.dictionaries(TEXT, LEAVES, max_size=4),
    st.lists(TEXT, max_size=4),
    st.binary(max_size=200),
    st.booleans(),
)


@given(TREES)
def test_what_is_written_is_read_again(tree: Tree) -> None:
    assert Tree.decode(tree.encode()) == tree


@given(st.binary(max_size=300), st.sampled_from([Tree, ControlSolveRequest, Packet, Stat, VertexRecord, Definition]))
def test_any_bytes_are_a_message_or_malformed(data: bytes, kind: type[Message]) -> None:
    try:
        read = kind.decode(data)
    except Malformed:
        return
    assert kind.decode(read.encode()) == read


@given(TREES, st.data())
def test_a_message_that_is_cut_off_never_reads_as_something_longer(tree: Tree, data: st.DataObject) -> None:
    whole = tree.encode()
    cut = whole[: data.draw(st.integers(0, len(whole)))]
    with contextlib.suppress(Malformed):
        assert len(Tree.decode(cut).encode()) <= len(whole)


@given(st.integers(0, 2**64 - 1))
def test_numbers_of_64_bits_keep_their_value(value: int) -> None:
    out = bytearray()
    put_varint(out, value)
    assert read_varint(bytes(out), 0) == (value, len(out))


def test_bytes_are_those_of_the_published_encoding() -> None:
    assert Leaf(150).encode() == b"\x08\x96\x01"  # the example of the specification
    assert Leaf(-2).encode() == b"\x08\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x01"
    assert Leaf(name="testing").encode() == b"\x12\x07testing"
    assert BytesMessage(b"\0\1").encode() == b"\x0a\x02\0\1"


def test_unknown_fields_of_every_kind_are_skipped() -> None:
    unknown = b"\x50\x01" + b"\x59" + b"12345678" + b"\x5a\x02hi" + b"\x65" + b"1234"
    assert Leaf.decode(unknown + Leaf(7, "x").encode() + unknown) == Leaf(7, "x")


@pytest.mark.parametrize(
    "data",
    [b"\x08", b"\x08\xff" * 11, b"\x0a\x05abc", b"\x12\x03\xff\xfe\xfd", b"\x0b", b"\x0f\x01", b"\x59123", b"\x12\x80"],
    ids=["no value", "no end", "wrong kind", "no text", "a group", "kind 7", "too short", "no length"],
)
def test_what_is_no_message_is_said_to_be_none(data: bytes) -> None:
    with pytest.raises(Malformed):
        Leaf.decode(data)


def test_a_length_far_beyond_the_message_costs_nothing() -> None:
    with pytest.raises(Malformed):
        Leaf.decode(b"\x12\xff\xff\xff\xff\x0fx")


def test_messages_in_each_other_without_end_are_refused() -> None:
    data = b""
    for _ in range(50):
        out = bytearray(b"\x0a")
        put_varint(out, len(data))
        data = bytes(out) + data
    with pytest.raises(Malformed):
        Nested.decode(data)
