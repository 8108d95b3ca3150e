"""Bridges, addresses, published ports and names: how containers reach each other and are reached.

    networks              the entry for the rest of the engine; reconciler, sandboxes, namespace_pool, announcer,
                          default_bridge
    lb/                   services: virtual addresses and published ports lead to the tasks that accept connections
    nat/                  published ports: allocation, the nftables table, conntrack, user-space proxy
    socket_lb/  dns/      redirection at connect(); the embedded DNS, hosts and resolv.conf
    namespaces/           namespaces, and the links, routes and sysctls in them
    ipam/                 subnets and addresses
    model, frontends      values; acceptor, cluster_hooks

Each line imports only from those below (a contract in pyproject.toml).
"""

from bennu.network.creation import NetworkRequest
from bennu.network.dns.files import parse_link, render_hosts, render_resolv_conf
from bennu.network.dns.host_resolv_conf import read_resolv_conf
from bennu.network.model import (
    Endpoint,
    EndpointRequest,
    Network,
    NetworkFailure,
    NetworkSettings,
    PortLink,
    PortRequest,
    Resolver,
    Sandbox,
)
from bennu.network.nat.port_bindings import parse_port_bindings
from bennu.network.networks import Networks

__all__ = [
    "Endpoint",
    "EndpointRequest",
    "Network",
    "NetworkFailure",
    "NetworkRequest",
    "NetworkSettings",
    "Networks",
    "PortLink",
    "PortRequest",
    "Resolver",
    "Sandbox",
    "parse_link",
    "parse_port_bindings",
    "read_resolv_conf",
    "render_hosts",
    "render_resolv_conf",
]
