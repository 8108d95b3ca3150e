"""Published ports, bridges and services to make firewall tables of."""

from bennu.network.fronts import Address, Backend, Front, Place, Port
from bennu.network.rules import BridgeRules, Forward

WEB = Forward("tcp", "0.0.0.0", 8080, "172.17.0.2", 80)
LOCAL = Forward("udp", "127.0.0.1", 53, "172.17.0.2", 53)
SIX = Forward("tcp", "::", 8080, "fd00::2", 80)
SIX_ONE = Forward("tcp", "fd00::1", 8080, "fd00::2", 80)
BRIDGES = (
    BridgeRules("bennu0", ("172.17.0.0/16",)),
    BridgeRules("br-six", ("172.18.0.0/16", "fd00::/64")),
    BridgeRules("br-inner", ("172.19.0.0/16",), internal=True),
    BridgeRules("br-quiet", ("172.20.0.0/16",), icc=False, masquerade=False),
)


def front(service: str, port: int, *tasks: str) -> Front:
    return Front(
        service_id=service,
        places=(Place(network_id="n", bridge="br-n", vip="10.0.1.2", names=("web",)),),
        ports=(("tcp", port),),
        backends=tuple(
            Backend(
                owner=ip,
                ip=ip.replace("10.0.1", "10.0.0"),
                addresses=(Address(network_id="n", ip=ip), Address(network_id="i", ip=ip.replace("10.0.1", "10.0.0"))),
                ports=(Port(proto="tcp", published=port, target=80),),
            )
            for ip in tasks
        ),
    )
