"""Which connections of the host itself may go straight to a container, as values, and what the kernel gets of them."""

import struct

import pytest

from bennu import bpf
from bennu.network.fronts import Backend, Front, Port
from bennu.network.rules import Forward
from bennu.network.ways import MAX_TARGETS, WAY_SIZE, Address, Ways, encode_address, encode_way


def backend(number: int, *ports: Port) -> Backend:
    return Backend(owner=f"task{number}", ip=f"10.0.0.{number}", ports=ports or (WEB,))


WEB = Port(proto="tcp", published=8080, target=80)
DNS = Port(proto="udp", published=53, target=53)


@pytest.mark.parametrize(
    ("forward", "expected"),
    [
        (Forward("tcp", "0.0.0.0", 8080, "10.0.0.2", 80), {("0.0.0.0", 8080): (("10.0.0.2", 80),)}),
        (Forward("tcp", "127.0.0.1", 8080, "10.0.0.2", 80), {("127.0.0.1", 8080): (("10.0.0.2", 80),)}),
        (Forward("udp", "0.0.0.0", 53, "10.0.0.2", 53), {}),
        (Forward("tcp", "::", 8080, "fd00::2", 80), {}),
    ],
)
def test_a_containers_port_is_a_way_if_it_is_of_tcp_and_ipv4(forward: Forward, expected: object) -> None:
    assert Ways().change((), [forward], ()) == expected


def test_a_services_port_leads_to_its_tasks() -> None:
    front = Front(service_id="s", ports=(("tcp", 8080), ("udp", 53)), backends=(backend(1, WEB, DNS), backend(2)))
    assert Ways().change((), (), [(None, front)]) == {("0.0.0.0", 8080): (("10.0.0.1", 80), ("10.0.0.2", 80))}


@pytest.mark.parametrize(("tasks", "is_way"), [(0, False), (1, True), (MAX_TARGETS, True), (MAX_TARGETS + 1, False)])
def test_what_nobody_serves_and_what_too_many_serve_is_left_to_the_rules(tasks: int, is_way: bool) -> None:
    (targets,) = Ways().change((), (), [(None, service("s", tasks))]).values()
    assert bool(targets) is is_way


def service(name: str, tasks: int) -> Front:
    return Front(service_id=name, ports=(("tcp", 8080),), backends=tuple(backend(n) for n in range(tasks)))


HERE, ANYWHERE = ("127.0.0.1", 8080), ("0.0.0.0", 8080)
CONTAINER: tuple[Address, ...] = (("172.17.0.2", 80),)
TASK: tuple[Address, ...] = (("10.0.0.0", 80),)


@pytest.mark.parametrize("tasks", [0, 1, MAX_TARGETS + 1])
@pytest.mark.parametrize("place", [HERE, ANYWHERE])
def test_a_services_port_comes_before_a_containers_while_it_is_there(tasks: int, place: Address) -> None:
    """The rules ask for a service first, and refuse where it has no task."""
    ways, forward, front = Ways(), Forward("tcp", *place, "172.17.0.2", 80), service("s", tasks)
    assert ways.change((), [forward], ()) == {place: CONTAINER}
    led = ways.change((), (), [(None, front)])
    assert led == {place: (), ANYWHERE: TASK if tasks == 1 else ()}
    assert ways.change([forward], [forward], ())[place] == led[place], "nor while the container changes"
    assert ways.change((), (), [(front, None)]) == {ANYWHERE: (), place: CONTAINER}


def test_a_port_that_moves_from_one_service_to_another_leads_to_the_other() -> None:
    ways, one, other = Ways(), service("one", 1), service("other", 2)
    ways.change((), (), [(None, one)])
    changes = [(None, other), (one, None)]
    assert len(ways.change((), (), changes)[ANYWHERE]) == 2


def test_what_went_leads_nowhere() -> None:
    ways, forward = Ways(), Forward("tcp", *HERE, "172.17.0.2", 80)
    ways.change((), [forward], ())
    assert ways.change([forward], (), ()) == {HERE: ()}
    assert ways.change((), (), ()) == {}


def test_addresses_are_as_on_the_wire() -> None:
    assert encode_address(("10.0.0.2", 80)) == bytes((10, 0, 0, 2, 0, 80, 0, 0))


def test_a_way_is_a_counter_a_number_and_the_targets() -> None:
    way = encode_way((("10.0.0.2", 80), ("10.0.0.3", 81)))
    assert len(way) == WAY_SIZE
    assert way[:24] == struct.pack("=II", 0, 2) + bytes((10, 0, 0, 2, 0, 80, 0, 0, 10, 0, 0, 3, 0, 81, 0, 0))
    assert not any(way[24:])


def test_jumps_count_from_the_instruction_after_them() -> None:
    program = bpf.Program()
    program.label("again")
    program.set64(2, 1)  # two words
    program.jump_if_equal(1, 7, "end")
    program.jump_unless_same(1, 2, "again")
    program.label("end")
    program.end()
    words = [struct.unpack_from("=BBhi", program.assemble(), 8 * number) for number in range(5)]
    assert [offset for _, _, offset, _ in words] == [0, 0, 1, -4, 0]


@pytest.mark.parametrize(
    ("mounts", "expected"),
    [
        ("cgroup2 /sys/fs/cgroup cgroup2 rw 0 0\n", "/sys/fs/cgroup"),
        (
            "tmpfs /sys/fs/cgroup tmpfs ro 0 0\ncgroup /sys/fs/cgroup/pids cgroup rw,pids 0 0\n"
            "cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n",
            "/sys/fs/cgroup/unified",
        ),
        ("cgroup /sys/fs/cgroup/pids cgroup rw,pids 0 0\n", "None"),
    ],
)
def test_the_root_of_version_2_is_found_on_pure_and_hybrid_machines(mounts: str, expected: str) -> None:
    assert str(bpf.find_cgroup_root(mounts)) == expected
