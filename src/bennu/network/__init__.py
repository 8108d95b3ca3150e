"""Bridges, addresses, published ports and names: how a container meets the others and the world."""

from bennu.network.creation import NetworkRequest
from bennu.network.dns.files import parse_link, render_hosts, render_resolv_conf
from bennu.network.dns.host_resolv_conf import read_resolv_conf
from bennu.network.model import (
    Endpoint,
    EndpointRequest,
    Network,
    NetworkFailure,
    NetworkSettings,
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
    "PortRequest",
    "Resolver",
    "Sandbox",
    "parse_link",
    "parse_port_bindings",
    "read_resolv_conf",
    "render_hosts",
    "render_resolv_conf",
]
