"""Published ports, bridges and services to make firewall tables of."""

from bennu.network.frontends import BackendAddress, BackendPort, Frontend, FrontendAddress, ServiceBackend
from bennu.network.model import GatewayMode, PortForward
from bennu.network.nat.rules import BridgeRules

WEB = PortForward("tcp", "0.0.0.0", 8080, "172.17.0.2", 80)
LOCAL = PortForward("udp", "127.0.0.1", 53, "172.17.0.2", 53)
SIX = PortForward("tcp", "::", 8080, "fd00::2", 80)
SIX_ONE = PortForward("tcp", "fd00::1", 8080, "fd00::2", 80)
BRIDGES = (
    BridgeRules("bennu0", ("172.17.0.0/16",)),
    BridgeRules("br-six", ("172.18.0.0/16", "fd00::/64")),
    BridgeRules("br-inner", ("172.19.0.0/16",), internal=True),
    BridgeRules("br-quiet", ("172.20.0.0/16",), icc=False, masquerade=False),
)
MODES = (
    BridgeRules("br-nat", ("10.0.0.0/24", "fd00:a::/64"), host_ip6="2001:db8::9", trusted=("eth7",)),
    BridgeRules("br-routed", ("10.1.0.0/24", "fd00:b::/64"), mode4=GatewayMode.ROUTED, mode6=GatewayMode.ROUTED),
    BridgeRules("br-bare", ("10.2.0.0/24",), host_ip4="192.0.2.9", mode4=GatewayMode.UNPROTECTED),
    BridgeRules("br-in", ("10.3.0.0/24",), internal=True, mode4=GatewayMode.ISOLATED),
)


def frontend(service: str, port: int, *tasks: str) -> Frontend:
    return Frontend(
        service_id=service,
        addresses=(FrontendAddress(network_id="n", bridge="br-n", vip="10.0.1.2", names=("web",)),),
        ports=(("tcp", port),),
        backends=tuple(
            ServiceBackend(
                owner=ip,
                ip=ip.replace("10.0.1", "10.0.0"),
                addresses=(
                    BackendAddress(network_id="n", ip=ip),
                    BackendAddress(network_id="i", ip=ip.replace("10.0.1", "10.0.0")),
                ),
                ports=(BackendPort(proto="tcp", published=port, target=80),),
            )
            for ip in tasks
        ),
    )
