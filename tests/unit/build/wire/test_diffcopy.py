"""Receiving a folder: a sender of the tests' own speaks fsutil's side; and what a sender may not do."""

import asyncio
import contextlib
import urllib.parse
from collections.abc import AsyncIterator, Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bennu.build.wire.diffcopy import DIR, ERR, FIN, REQ, SYMLINK, Order, SmallFiles, options, read_packet, receive
from bennu.build.wire.grpc import Call, answers
from bennu.build.wire.http2 import Http2
from bennu.build.wire.messages import Packet, Stat
from bennu.build.wire.session import DIFF_COPY, ClientSession, SessionGone
from bennu.errors import BennuError, InvalidParameter
from support.links import link_pair

Send = Callable[[Call], "asyncio.Future[None] | object"]


@contextlib.asynccontextmanager
async def session(entries: Sequence[tuple[Stat, bytes]], tail: Sequence[Packet] = ()) -> AsyncIterator[ClientSession]:
    """Have a client that sends these entries, in this order, and then perhaps something else."""

    async def send(call: Call) -> None:
        for stat, _ in entries:
            await call.send(Packet(stat=stat))
        for packet in tail or [Packet()]:
            await call.send(packet)
        while (message := await call.receive()) is not None:
            kind, number, _, _ = read_packet(message)
            if kind == REQ:
                content = entries[number][1]
                for at in range(0, len(content), 7):
                    await call.send(Packet(2, id=number, data=content[at : at + 7]))
                await call.send(Packet(2, id=number))
            elif kind == FIN:
                await call.send(Packet(FIN))

    ours, theirs = link_pair()
    connection, client = Http2(ours, serve=None), Http2(theirs, serve=answers({DIFF_COPY: send}))
    running = [asyncio.create_task(one.run()) for one in (connection, client)]
    try:
        yield ClientSession("id", "key", [DIFF_COPY], connection)
    finally:
        await ours.close()
        await asyncio.gather(*running)


def folder(path: str) -> tuple[Stat, bytes]:
    return Stat(path, DIR | 0o755), b""


def file(path: str, content: bytes = b"", linkname: str = "") -> tuple[Stat, bytes]:
    return Stat(path, 0o644, size=len(content), linkname=linkname), content


def link(path: str, target: str) -> tuple[Stat, bytes]:
    return Stat(path, SYMLINK | 0o777, linkname=target), b""


async def received(entries: Sequence[tuple[Stat, bytes]], names: Sequence[str]) -> dict[str, bytes]:
    files = SmallFiles(names, 1000)
    async with session(entries) as client, asyncio.timeout(5):
        await receive(client, options("context", follow=names), files)
    return files.found()


async def test_files_come_with_their_contents() -> None:
    entries = [file("a", b"one" * 100), folder("sub"), file("sub/b", b"two"), file("z")]
    assert await received(entries, ["a", "sub/b", "z", "none"]) == {"a": b"one" * 100, "sub/b": b"two", "z": b""}


async def test_links_lead_to_the_files_that_are_meant() -> None:
    entries = [link("Dockerfile", "sub/real"), file("a", b"x"), file("b", linkname="a"), link("loop", "loop")]
    entries += [folder("sub"), file("sub/real", b"FROM scratch"), link("sub/up", "../a")]
    names = ["Dockerfile", "b", "sub/up", "loop"]
    assert await received(entries, names) == {"Dockerfile": b"FROM scratch", "b": b"x", "sub/up": b"x"}


async def test_more_than_was_to_be_read_is_refused() -> None:
    with pytest.raises(InvalidParameter, match="too large"):
        await received([file("a", b"x" * 2000)], ["a"])


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ([file("../x")], "invalid path"),
        ([file("/etc/passwd")], "invalid path"),
        ([file("a/../b")], "invalid path"),
        ([file("")], "invalid path"),
        ([file("a\0b")], "invalid path"),
        ([file("./a")], "invalid path"),
        ([file("a//b")], "invalid path"),
        ([file("x" * 256)], "too long"),
        ([file("b"), file("a")], "out of order"),
        ([file("a"), file("a")], "out of order"),
        ([file("a/b")], "out of order"),
        ([file("a"), file("a/b")], "out of order"),
        ([link("a", "/etc"), file("a/b")], "out of order"),
        ([folder("a"), file("b"), file("a/c")], "out of order"),
        ([file("a", linkname="b")], "not sent before"),
        ([link("a", "/etc/shadow"), file("b", linkname="a")], "not sent before"),
        ([file("a", linkname="../../etc/shadow")], "not sent before"),
    ],
)
async def test_names_that_no_folder_has_are_refused(entries: list[tuple[Stat, bytes]], words: str) -> None:
    with pytest.raises(InvalidParameter, match=words):
        await received(entries, [])


@pytest.mark.parametrize(
    ("tail", "words"),
    [
        ([Packet(2, id=5, data=b"x")], "invalid file request 5"),
        ([Packet(ERR, data=b"no access")], "error from sender: no access"),
        ([Packet(9)], "packets of kind 9"),
        ([Packet(), Packet(stat=Stat("late", 0o644))], "too many entries|sent less|broke off"),
    ],
)
async def test_packets_out_of_place_are_refused(tail: list[Packet], words: str) -> None:
    with pytest.raises(BennuError, match=words):
        async with session([file("a", b"content")], tail) as client, asyncio.timeout(5):
            await receive(client, options("context"), SmallFiles([], 1000))


async def test_a_client_that_leaves_is_said_to_have_left() -> None:
    with pytest.raises((SessionGone, BennuError)):
        async with session([file("a", b"x" * 1000)]) as client, asyncio.timeout(5):
            client.gone.set()
            await receive(client, options("context"), SmallFiles([], 10))


NAMES = st.sampled_from(["a", "a-", "b", "c.d", "é"])
TREES = st.recursive(st.none(), lambda below: st.dictionaries(NAMES, below, max_size=4), max_leaves=12)


def walk(tree: dict[str, object], above: str = "") -> list[Stat]:
    """List a tree as a walk of it does: in order of the names, each folder before what is in it."""
    found = []
    for name in sorted(tree):
        below = tree[name]
        found.append(Stat(above + name, DIR if isinstance(below, dict) else 0))
        if isinstance(below, dict):
            found += walk(below, f"{above}{name}/")
    return found


@given(st.dictionaries(NAMES, TREES, max_size=5))
def test_the_walk_of_any_folder_is_in_order(tree: dict[str, object]) -> None:
    order = Order()
    for stat in walk(tree):
        order.check(stat)


@given(st.dictionaries(NAMES, TREES, min_size=2, max_size=5), st.data())
def test_no_other_order_passes(tree: dict[str, object], data: st.DataObject) -> None:
    entries = walk(tree)
    first = data.draw(st.integers(0, len(entries) - 2))
    entries[first], entries[first + 1] = entries[first + 1], entries[first]
    order = Order()
    with pytest.raises(InvalidParameter):
        for stat in entries:
            order.check(stat)


@given(st.lists(st.text(alphabet=st.characters(exclude_categories=("Cs",)), max_size=20), max_size=5))
def test_patterns_of_any_letters_arrive_as_they_are(patterns: list[str]) -> None:
    sent = options("context", exclude=patterns)
    coded = ("exclude-patterns-encoded", "1") in sent
    values = [value for key, value in sent if key == "exclude-patterns"]
    assert [urllib.parse.unquote(value) if coded else value for value in values] == patterns
    assert all(value.isascii() and value.isprintable() for value in values)
