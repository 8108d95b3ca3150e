"""Which connections of the host itself may go straight to a container, as values, and what the kernel gets of them."""

import struct

import pytest

from bennu import bpf
from bennu.network.frontends import BackendPort, Frontend, ServiceBackend
from bennu.network.model import PortForward
from bennu.network.socket_lb.backend_table import MAX_BACKENDS, BackendTable, SocketAddress
from bennu.network.socket_lb.programs import BACKENDS_SIZE, encode_address, encode_backends


def backend(number: int, *ports: BackendPort) -> ServiceBackend:
    return ServiceBackend(owner=f"task{number}", ip=f"10.0.0.{number}", ports=ports or (WEB,))


WEB = BackendPort(proto="tcp", published=8080, target=80)
DNS = BackendPort(proto="udp", published=53, target=53)


@pytest.mark.parametrize(
    ("forward", "expected"),
    [
        (PortForward("tcp", "0.0.0.0", 8080, "10.0.0.2", 80), {("0.0.0.0", 8080): (("10.0.0.2", 80),)}),
        (PortForward("tcp", "127.0.0.1", 8080, "10.0.0.2", 80), {("127.0.0.1", 8080): (("10.0.0.2", 80),)}),
        (PortForward("udp", "0.0.0.0", 53, "10.0.0.2", 53), {}),
        (PortForward("tcp", "::", 8080, "fd00::2", 80), {}),
    ],
)
def test_a_containers_port_is_balanced_if_it_is_of_tcp_and_ipv4(forward: PortForward, expected: object) -> None:
    assert BackendTable().apply((), [forward], ()) == expected


def test_a_services_port_leads_to_its_tasks() -> None:
    frontend = Frontend(service_id="s", ports=(("tcp", 8080), ("udp", 53)), backends=(backend(1, WEB, DNS), backend(2)))
    assert BackendTable().apply((), (), [(None, frontend)]) == {("0.0.0.0", 8080): (("10.0.0.1", 80), ("10.0.0.2", 80))}


@pytest.mark.parametrize(
    ("tasks", "is_balanced"), [(0, False), (1, True), (MAX_BACKENDS, True), (MAX_BACKENDS + 1, False)]
)
def test_what_nobody_serves_and_what_too_many_serve_is_left_to_the_rules(tasks: int, is_balanced: bool) -> None:
    (targets,) = BackendTable().apply((), (), [(None, service("s", tasks))]).values()
    assert bool(targets) is is_balanced


def service(name: str, tasks: int) -> Frontend:
    return Frontend(service_id=name, ports=(("tcp", 8080),), backends=tuple(backend(n) for n in range(tasks)))


HERE, ANYWHERE = ("127.0.0.1", 8080), ("0.0.0.0", 8080)
CONTAINER: tuple[SocketAddress, ...] = (("172.17.0.2", 80),)
TASK: tuple[SocketAddress, ...] = (("10.0.0.0", 80),)


@pytest.mark.parametrize("tasks", [0, 1, MAX_BACKENDS + 1])
@pytest.mark.parametrize("place", [HERE, ANYWHERE])
def test_a_services_port_comes_before_a_containers_while_it_is_there(tasks: int, place: SocketAddress) -> None:
    """The rules ask for a service first, and refuse where it has no task."""
    table, forward, frontend = BackendTable(), PortForward("tcp", *place, "172.17.0.2", 80), service("s", tasks)
    assert table.apply((), [forward], ()) == {place: CONTAINER}
    resolved = table.apply((), (), [(None, frontend)])
    assert resolved == {place: (), ANYWHERE: TASK if tasks == 1 else ()}
    assert table.apply([forward], [forward], ())[place] == resolved[place], "nor while the container changes"
    assert table.apply((), (), [(frontend, None)]) == {ANYWHERE: (), place: CONTAINER}


def test_a_port_that_moves_from_one_service_to_another_leads_to_the_other() -> None:
    table, one, other = BackendTable(), service("one", 1), service("other", 2)
    table.apply((), (), [(None, one)])
    changes = [(None, other), (one, None)]
    assert len(table.apply((), (), changes)[ANYWHERE]) == 2


def test_what_went_leads_nowhere() -> None:
    table, forward = BackendTable(), PortForward("tcp", *HERE, "172.17.0.2", 80)
    table.apply((), [forward], ())
    assert table.apply([forward], (), ()) == {HERE: ()}
    assert table.apply((), (), ()) == {}


def test_addresses_are_as_on_the_wire() -> None:
    assert encode_address(("10.0.0.2", 80)) == bytes((10, 0, 0, 2, 0, 80, 0, 0))


def test_backends_are_a_counter_a_number_and_the_targets() -> None:
    encoded = encode_backends((("10.0.0.2", 80), ("10.0.0.3", 81)))
    assert len(encoded) == BACKENDS_SIZE
    assert encoded[:24] == struct.pack("=II", 0, 2) + bytes((10, 0, 0, 2, 0, 80, 0, 0, 10, 0, 0, 3, 0, 81, 0, 0))
    assert not any(encoded[24:])


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
