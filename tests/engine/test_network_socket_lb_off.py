"""With `socket_lb` off the nftables rules serve local clients alone, and nothing is loaded into the kernel."""

import socket
from pathlib import Path

from network_helpers import echo_server, exchange, needs_network, open_host

from bennu.network import EndpointRequest, PortRequest
from bennu.network.frontends import BackendPort, Frontend, ServiceBackend
from support.traces import programs_of

pytestmark = needs_network


async def test_ports_of_containers_and_services_are_reached_on_loopback_and_nothing_is_loaded(tmp_path: Path) -> None:
    async with open_host(tmp_path, socket_lb=False) as host:
        endpoint = EndpointRequest(network="bridge", container_name="a")
        sandbox = await host.networks.open_sandbox("a" * 12, [endpoint], [PortRequest(container_port=7)])
        ip, published = sandbox.endpoints[0].ip_address, sandbox.ports[0].host_port
        number = host.free_port()
        backend = ServiceBackend(owner="a", ip=ip, ports=(BackendPort(proto="tcp", published=number, target=7),))
        host.networks.balancer.put(Frontend(service_id="s", ports=(("tcp", number),), backends=(backend,)))
        await host.networks.balancer.write("s")
        await host.networks.reconcile()
        with echo_server(sandbox.netns, "0.0.0.0", 7):
            for port in (published, number):
                assert exchange("", "127.0.0.1", port).startswith(ip)
                with socket.create_connection(("127.0.0.1", port), timeout=2) as client:
                    assert is_connected_to(client, "127.0.0.1", port), "the packets are translated, not the socket"
        assert programs_of(host.root / "data") == 0
        assert not bpf_descriptors()
        host.networks.balancer.drop("s")
        await host.networks.balancer.write("s")


def is_connected_to(client: socket.socket, address: str, port: int) -> bool:
    """Whether the kernel's table of sockets says so, whatever getpeername() tells."""
    own = client.getsockname()[1]
    remote = f"{socket.inet_aton(address)[::-1].hex().upper()}:{port:04X}"
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return any(local.endswith(f":{own:04X}") and there == remote for _, local, there, *_ in lines)


def bpf_descriptors() -> list[str]:
    """Programs and maps that this process has open."""
    links = []
    for entry in Path("/proc/self/fd").iterdir():
        try:
            links.append(str(entry.readlink()))
        except OSError:  # the folder's own descriptor
            continue
    return [link for link in links if link.startswith("anon_inode:bpf")]
