"""What is announced of a new endpoint, and how often."""

import asyncio
import socket
from ipaddress import IPv6Address
from pathlib import Path

import pytest

from bennu.errors import InvalidParameter
from bennu.network import NetworkRequest
from bennu.network.announcer import Announcer
from bennu.network.creation import Surroundings, plan_network
from bennu.network.namespaces.announcement import ALL_NODES, Announcement, checksum, frames_of

MAC = bytes.fromhex("0242ac160202")


def test_gratuitous_arp_asks_everybody_for_its_own_address() -> None:
    (frame,) = frames_of(MAC, "172.22.2.2", "")
    assert frame[:6] == b"\xff" * 6 and frame[6:12] == MAC and frame[12:14] == b"\x08\x06"
    assert frame[14:] == bytes.fromhex("0001 0800 06 04 0001") + MAC + bytes([172, 22, 2, 2]) + bytes(6) + bytes(
        [172, 22, 2, 2]
    )


def test_an_unsolicited_advertisement_overrides_what_all_nodes_know() -> None:
    (frame,) = frames_of(MAC, "", "fd00::2")
    packet = frame[14:]
    assert frame[:14] == bytes.fromhex("333300000001") + MAC + b"\x86\xdd"
    assert packet[0] >> 4 == 6 and packet[6:8] == bytes([58, 255]) and len(packet) == 40 + 32
    assert packet[8:24] == IPv6Address("fd00::2").packed and packet[24:40] == ALL_NODES.packed
    message = packet[40:]
    assert message[:2] == bytes([136, 0]) and message[4:8] == bytes.fromhex("20000000")
    assert message[8:24] == IPv6Address("fd00::2").packed and message[24:] == bytes([2, 1]) + MAC
    assert checksum(packet[8:40] + bytes([0, 0, 0, 32, 0, 0, 0, 58]) + message) == 0, "as its receiver checks it"


def test_both_families_are_announced_and_none_has_nothing_to_say() -> None:
    assert len(frames_of(MAC, "10.0.0.2", "fd00::2")) == 2
    assert frames_of(MAC, "", "") == ()


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("nmsgs", "-1", "must be in the range 0 to 3"),
        ("nmsgs", "4", "must be in the range 0 to 3"),
        ("nmsgs", "nonsense", '"nonsense" must be an integer'),
        ("ms", "99", "must be in the range 100 to 2000"),
        ("ms", "2001", "must be in the range 100 to 2000"),
        ("ms", "1e3", '"1e3" must be integer milliseconds'),
        ("nmsgs", "0", ""),
        ("ms", "100", ""),
    ],
)
def test_how_often_is_judged_when_the_network_is_made(option: str, value: str, words: str) -> None:
    name = f"com.docker.network.advertise_addr_{option}"
    request = NetworkRequest(name="n", options={name: value})
    if not words:
        network = plan_network(request, Surroundings(present=[]), network_id="i" * 64, created_ns=0)
        assert (network.announcements, network.announcement_interval_s) == ((0, 1.0) if option == "nmsgs" else (3, 0.1))
        return
    with pytest.raises(InvalidParameter) as refused:
        plan_network(request, Surroundings(present=[]), network_id="i" * 64, created_ns=0)
    assert name in str(refused.value) and words in str(refused.value)


def count_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


class Counting(Announcement):
    """Counts instead of sending, and fails from a number on."""

    __slots__ = ("count", "fails_at")

    def __init__(self, endpoint_id: str, fails_at: int = 99) -> None:
        super().__init__(endpoint_id, "eth0", MAC, (b"",), socket.socket())
        object.__setattr__(self, "count", 0)
        object.__setattr__(self, "fails_at", fails_at)

    def send(self) -> bool:
        object.__setattr__(self, "count", self.count + 1)
        return self.count < self.fails_at


async def test_an_announcement_is_repeated_as_often_as_asked_and_ends_with_its_endpoint() -> None:
    before = count_descriptors()
    announcer = Announcer()
    whole, failing, ended, single = Counting("a"), Counting("b", fails_at=1), Counting("c"), Counting("d")
    for one, times in ((whole, 2), (failing, 2), (ended, 2), (single, 0)):
        announcer.repeat(one, times, 0.02)
    announcer.stop(["c", "nosuch"])
    await asyncio.sleep(0.2)
    assert [one.count for one in (whole, failing, ended, single)] == [2, 1, 0, 0]
    announcer.repeat(late := Counting("e"), 2, 0.02)
    announcer.close()
    await asyncio.sleep(0.05)
    assert late.count == 0
    assert count_descriptors() == before, "each has closed its socket"
