"""A container as `inspect` shows it: the record as Docker's JSON, keys in Docker's order (moby `daemon/inspect.go`)."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from bennu.api.shapes.instants import rfc3339
from bennu.engine.container import Container
from bennu.engine.engine import Engine
from bennu.engine.links import shown_links
from bennu.engine.record import Record
from bennu.engine.sandbox import endpoint_request, network_ref
from bennu.errors import InvalidParameter, NotFound
from bennu.lifecycle.status import State
from bennu.model import ContainerConfig, EndpointSettings, HostConfig, MountPoint, PublishedPort
from bennu.network.ipam.catalogue import dns_names
from bennu.network.model import PREDEFINED, as_settings
from bennu.network.nat.port_bindings import exposed_names

STORAGE_DRIVER: Final = "overlay2"
Json = dict[str, Any]


def inspect_container(
    engine: Engine, container: Container, api_minor: int, sizes: tuple[int, int] | None = None
) -> Json:
    """Write a container; `sizes` are SizeRw and SizeRootFs in bytes, if they were asked for."""
    record = container.record
    folder = engine.services.folder(record.id)
    document: Json = {
        "Id": record.id,
        "Created": rfc3339(record.created_ns),
        "Path": record.path,
        "Args": record.args,
        "State": state_of(container),
        "Image": record.image_id,
        "ResolvConfPath": str(folder / "resolv.conf"),
        "HostnamePath": str(folder / "hostname"),
        "HostsPath": str(folder / "hosts"),
        "LogPath": shown_log_path(engine, record),
        "Name": f"/{record.name}",
        "RestartCount": record.life.restarts.count,
        "Driver": STORAGE_DRIVER,
        "Platform": "linux",
        "MountLabel": "",
        "ProcessLabel": "",
        "AppArmorProfile": "",
        "ExecIDs": engine.execs.running_in(record.id) or None,
        "HostConfig": shown_host_config(engine, record),
        "GraphDriver": graph_driver(engine, record),
    }
    if sizes is not None:
        document["SizeRw"], document["SizeRootFs"] = sizes
    document["Mounts"] = [mount_point(point) for point in record.mounts]
    document["Config"] = with_mac_address(record)
    document["NetworkSettings"] = network_settings(engine, record, api_minor)
    document["Bennu"] = own_facts(container)
    return document


def shown_host_config(engine: Engine, record: Record) -> HostConfig:
    """Answer the host configuration with its legacy links, by the present names of their containers."""
    return msgspec.structs.replace(record.host_config, links=shown_links(engine.services, record) or None)


def own_facts(container: Container) -> Json:
    """Write what Docker has no word for. `Ready` null: no `bennu.ready.*` label, or no probe has run yet."""
    return {"Lives": container.record.life.ordinal, "Ready": container.readiness.ready}


def state_word(container: Container) -> str:
    """Answer Docker's word; a removal under way shows only on a container that no longer runs."""
    if container.removing and not container.record.running:
        return str(State.REMOVING)
    return str(container.record.state)


def state_of(container: Container) -> Json:
    record = container.record
    state: Json = {
        "Status": state_word(container),
        "Running": record.running,
        "Paused": record.state is State.PAUSED,
        "Restarting": record.state is State.RESTARTING,
        "OOMKilled": record.oom_killed,
        "Dead": record.state is State.DEAD,
        "Pid": record.pid,
        "ExitCode": container.exit_code,
        "Error": record.error,
        "StartedAt": rfc3339(record.started_at_ns),
        "FinishedAt": rfc3339(record.finished_at_ns),
    }
    if record.health is not None:
        state["Health"] = record.health
    return state


def shown_log_path(engine: Engine, record: Record) -> str:
    """Answer the path of the log; "" before the first start, and unless what is there is Docker's `json-file`."""
    if not record.started_at_ns or record.host_config.log_config.type not in ("", "json-file"):
        return ""
    return str(engine.services.log_path(record.id))


def graph_driver(engine: Engine, record: Record) -> Json:
    folder = engine.services.folder(record.id)
    data = {
        "ID": record.id,
        "MergedDir": str(folder / "merged"),
        "UpperDir": str(folder / "diff"),
        "WorkDir": str(folder / "work"),
    }
    image = engine.services.images.get(record.image_id)
    if image is not None:
        layers = engine.services.images.layers
        lowers = [str(layers.root / layers.lower_of(diff_id)) for diff_id in reversed(image.diff_ids)]
        data = {"LowerDir": ":".join(lowers)} | data
    return {"Data": data, "Name": STORAGE_DRIVER}


def mount_point(point: MountPoint) -> Json:
    shown: Json = {"Type": point.type}
    if point.name:
        shown["Name"] = point.name
    shown |= {"Source": point.source, "Destination": point.destination}
    if point.driver:
        shown["Driver"] = point.driver
    return shown | {"Mode": point.mode, "RW": point.rw, "Propagation": point.propagation}


# --- network ----------------------------------------------------------------------------------------------------


def network_settings(engine: Engine, record: Record, api_minor: int) -> Json:
    """Write the networks; the flat fields mirror the default bridge for clients that still read them."""
    networks = networks_of(engine, record)
    flat = networks.get("bridge") or EndpointSettings()
    sandbox = record.sandbox
    return {
        "Bridge": "",
        "SandboxID": sandbox.sandbox_id if sandbox else "",
        "SandboxKey": sandbox.netns if sandbox else "",
        "Ports": port_map(record),
        "HairpinMode": False,
        "LinkLocalIPv6Address": "",
        "LinkLocalIPv6PrefixLen": 0,
        "SecondaryIPAddresses": None,
        "SecondaryIPv6Addresses": None,
        "EndpointID": flat.endpoint_id,
        "Gateway": flat.gateway,
        "GlobalIPv6Address": flat.global_ipv6_address,
        "GlobalIPv6PrefixLen": flat.global_ipv6_prefix_len,
        "IPAddress": flat.ip_address,
        "IPPrefixLen": flat.ip_prefix_len,
        "IPv6Gateway": flat.ipv6_gateway,
        "MacAddress": flat.mac_address,
        "Networks": {
            name: endpoint_json(settings, api_minor) | _aliases_of_old(record, name, settings, api_minor)
            for name, settings in networks.items()
        },
    }


def _aliases_of_old(record: Record, network: str, settings: EndpointSettings, api_minor: int) -> Json:
    """Write the aliases as before API 1.45, where the short id and the host name were among them."""
    if api_minor >= 45 or network in PREDEFINED:
        return {}
    return {"Aliases": list(dict.fromkeys([*(settings.aliases or ()), record.id[:12], record.config.hostname]))}


def with_mac_address(record: Record) -> ContainerConfig:
    """Return the configuration with the MAC address that was asked for on the container's main network."""
    mode = record.host_config.network_mode
    asked = record.endpoints.get(mode) or next(
        (one for one in record.endpoints.values() if mode and one.network_id.startswith(mode)), None
    )
    if record.config.mac_address or asked is None or not asked.mac_address:
        return record.config
    return msgspec.structs.replace(record.config, mac_address=asked.mac_address)


def networks_of(engine: Engine, record: Record) -> dict[str, EndpointSettings]:
    """Answer endpoints by network: those in force while a sandbox is held, else those asked for."""
    in_force = as_settings(record.sandbox) if record.sandbox else {}
    there = {settings.network_id for settings in in_force.values()}
    shown = {name: asked for name, asked in record.endpoints.items() if _id_of(engine, record, name) not in there}
    if record.started_at_ns:
        shown = {name: as_known(engine, record, name, settings) for name, settings in shown.items()}
    return shown | dict(in_force)


def _id_of(engine: Engine, record: Record, name: str) -> str:
    try:
        return engine.services.networks.find(network_ref(record, name)).id
    except (InvalidParameter, NotFound):
        return ""


def as_known(engine: Engine, record: Record, name: str, settings: EndpointSettings) -> EndpointSettings:
    """Add what is known of a network that the container was on: its id, and the container's names there."""
    try:
        network = engine.services.networks.find(network_ref(record, name))
    except NotFound:
        return settings
    names = dns_names(endpoint_request(record, name), record.id) if network.has_names else None
    return msgspec.structs.replace(settings, network_id=network.id, dns_names=names, mac_address="")


def endpoint_json(settings: EndpointSettings, api_minor: int) -> Json:
    shown: Json = {
        "IPAMConfig": settings.ipam_config,
        "Links": settings.links,
        "Aliases": settings.aliases,
        "MacAddress": settings.mac_address,
        "DriverOpts": settings.driver_opts,
        "GwPriority": settings.gw_priority,
        "NetworkID": settings.network_id,
        "EndpointID": settings.endpoint_id,
        "Gateway": settings.gateway,
        "IPAddress": settings.ip_address,
        "IPPrefixLen": settings.ip_prefix_len,
        "IPv6Gateway": settings.ipv6_gateway,
        "GlobalIPv6Address": settings.global_ipv6_address,
        "GlobalIPv6PrefixLen": settings.global_ipv6_prefix_len,
    }
    return shown | ({"DNSNames": settings.dns_names} if api_minor >= 44 else {})


def exposed_of(record: Record) -> Sequence[str]:
    exposed = record.config.exposed_ports
    return exposed_names(exposed if isinstance(exposed, Mapping) else None)


def published_of(record: Record) -> Sequence[PublishedPort]:
    return record.sandbox.ports if record.sandbox else []


def port_map(record: Record) -> dict[str, list[dict[str, str]] | None]:
    """Write `{"80/tcp": [bindings], "99/tcp": null}`; empty while it has no interface."""
    if record.sandbox is None or not any(endpoint.interface for endpoint in record.sandbox.endpoints):
        return {}
    ports: dict[str, list[dict[str, str]] | None] = dict.fromkeys(exposed_of(record))
    for port in published_of(record):
        key = f"{port.container_port}/{port.proto}"
        ports[key] = [*(ports.get(key) or []), {"HostIp": port.host_ip, "HostPort": str(port.host_port or "")}]
    return ports
