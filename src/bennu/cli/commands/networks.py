"""network: who can reach whom."""

from typing import Any

from bennu.cli.client import Client, segment
from bennu.cli.command import command, several, switch, text
from bennu.cli.commands.life import for_each
from bennu.cli.commands.volumes import report_pruned
from bennu.cli.failure import ApiFailure, Failure
from bennu.cli.formatting import Listing, print_list
from bennu.cli.output import complain, say, shorten_id
from bennu.cli.prompt import confirm
from bennu.cli.values import as_mapping, encode_filters, parse_filter

LISTING = Listing(headers={"ID": "NETWORK ID", "CreatedAt": "CREATED AT"}, columns="ID Name Driver Scope", quiet="ID")


def describe(item: dict[str, Any], *, full: bool) -> dict[str, Any]:
    labels = item.get("Labels") or {}
    return {
        "ID": item["Id"] if full else shorten_id(item["Id"]),
        "Name": item["Name"],
        "Driver": item["Driver"],
        "Scope": item["Scope"],
        "IPv4": show_flag(item.get("EnableIPv4", True)),
        "IPv6": show_flag(item.get("EnableIPv6", False)),
        "Internal": show_flag(item.get("Internal", False)),
        "Labels": ",".join(f"{name}={value}" for name, value in sorted(labels.items())),
        "CreatedAt": item.get("Created", ""),
        "Label": lambda name: labels.get(name, ""),
    }


def show_flag(value: bool) -> str:
    return "true" if value else "false"


@command(
    "",
    several("-f, --filter", 'Provide filter values (e.g. "driver=bridge")', kind="filter", parse=parse_filter),
    text("--format", "Format output using a Go template: 'table', 'table TEMPLATE', 'json' or 'TEMPLATE'"),
    switch("--no-trunc", "Do not truncate the output"),
    switch("-q, --quiet", "Only display network IDs"),
    most=0,
)
def ls(client: Client, words: list[str], *, filter: list[str], format: str | None, no_trunc: bool, quiet: bool) -> None:
    found = client.json("GET", "/networks", query={"filters": encode_filters(filter)})
    networks = sorted(found, key=lambda network: str(network["Name"]))
    print_list(LISTING, networks, lambda item, now: describe(item, full=no_trunc), format, quiet)


@command(
    "NETWORK",
    switch("--attachable", "Enable manual container attachment"),
    several("--aux-address", "Auxiliary IPv4 or IPv6 addresses used by Network driver", kind="map"),
    text("-d, --driver", "Driver to manage the Network", default="bridge"),
    several("--gateway", "IPv4 or IPv6 Gateway for the master subnet"),
    switch("--ingress", "Create swarm routing-mesh network"),
    switch("--internal", "Restrict external access to the network"),
    several("--ip-range", "Allocate container ip from a sub-range"),
    text("--ipam-driver", "IP Address Management Driver", default="default"),
    several("--ipam-opt", "Set IPAM driver specific options", kind="map"),
    switch("--ipv4", "Enable or disable IPv4 address assignment", default=True),
    switch("--ipv6", "Enable or disable IPv6 address assignment"),
    several("--label", "Set metadata on a network"),
    several("-o, --opt", "Set driver specific options", kind="map"),
    text("--scope", "Control the network's scope", default=""),
    several("--subnet", "Subnet in CIDR format that represents a network segment"),
    least=1,
    most=1,
)
def create(client: Client, words: list[str], *, given: set[str], **values: Any) -> None:
    ipam = {
        "Driver": values["ipam_driver"],
        "Options": as_mapping(values["ipam_opt"]),
        "Config": build_ipam(values),
    }
    body = {
        "Name": words[0],
        "Driver": values["driver"],
        "Options": as_mapping(values["opt"]),
        "IPAM": ipam,
        "Internal": values["internal"],
        "Attachable": values["attachable"],
        "Ingress": values["ingress"],
        "Scope": values["scope"],
        "Labels": as_mapping(values["label"]),
    }
    for option, field in (("ipv4", "EnableIPv4"), ("ipv6", "EnableIPv6")):
        if option in given:
            body[field] = values[option]
    answer = client.json("POST", "/networks/create", json_body=body)
    if answer.get("Warning"):
        complain(f"WARNING: {answer['Warning']}")
    say(answer["Id"])


def build_ipam(values: dict[str, Any]) -> list[dict[str, Any]]:
    """One entry a subnet; gateways and ranges go to the subnet that holds them."""
    from ipaddress import ip_address, ip_network

    if not values["subnet"] and (values["gateway"] or values["ip_range"] or values["aux_address"]):
        raise Failure("every ip-range or gateway must have a corresponding subnet")
    entries: dict[Any, dict[str, Any]] = {}
    try:
        for subnet in values["subnet"]:
            entries[ip_network(subnet, strict=False)] = {"Subnet": subnet}
        for gateway in values["gateway"]:
            holder(entries, ip_address(gateway), gateway)["Gateway"] = gateway
        for ip_range in values["ip_range"]:
            holder(entries, ip_network(ip_range, strict=False).network_address, ip_range)["IPRange"] = ip_range
        for name, address in as_mapping(values["aux_address"]).items():
            holder(entries, ip_address(address), address).setdefault("AuxiliaryAddresses", {})[name] = address
    except ValueError as error:
        raise Failure(f"invalid address: {error}") from None
    return list(entries.values())


def holder(entries: dict[Any, dict[str, Any]], address: Any, text: str) -> dict[str, Any]:
    for network, entry in entries.items():
        if address in network:
            return entry
    raise Failure(f"no matching subnet for {text}")


@command("NETWORK [NETWORK...]", switch("-f, --force", "Do not error if the network does not exist"), least=1)
def rm(client: Client, words: list[str], *, force: bool) -> None:
    def remove(name: str) -> str | None:
        try:
            client.do("DELETE", f"/networks/{segment(name)}")
        except ApiFailure as failure:
            if force and failure.status == 404:
                return ""
            raise
        return name

    for_each(words, remove)


@command(
    "NETWORK CONTAINER",
    several("--alias", "Add network-scoped alias for the container"),
    several("--driver-opt", "driver options for the network"),
    text("--ip", "IPv4 address (e.g., 172.30.100.104)"),
    text("--ip6", "IPv6 address (e.g., 2001:db8::33)"),
    several("--link", "Add link to another container"),
    several("--link-local-ip", "Add a link-local address for the container"),
    least=2,
    most=2,
)
def connect(client: Client, words: list[str], **values: Any) -> None:
    addresses = {"IPv4Address": values["ip"], "IPv6Address": values["ip6"], "LinkLocalIPs": values["link_local_ip"]}
    endpoint: dict[str, Any] = {}
    if any(addresses.values()):
        endpoint["IPAMConfig"] = {name: value for name, value in addresses.items() if value}
    for option, field in (("alias", "Aliases"), ("link", "Links")):
        if values[option]:
            endpoint[field] = values[option]
    if values["driver_opt"]:
        endpoint["DriverOpts"] = as_mapping(values["driver_opt"])
    body = {"Container": words[1], "EndpointConfig": endpoint}
    client.call("POST", f"/networks/{segment(words[0])}/connect", json_body=body).read()


@command(
    "NETWORK CONTAINER", switch("-f, --force", "Force the container to disconnect from a network"), least=2, most=2
)
def disconnect(client: Client, words: list[str], *, force: bool) -> None:
    body = {"Container": words[1], "Force": force}
    client.call("POST", f"/networks/{segment(words[0])}/disconnect", json_body=body).read()


@command(
    "",
    several("--filter", 'Provide filter values (e.g. "until=<timestamp>")', kind="filter", parse=parse_filter),
    switch("-f, --force", "Do not prompt for confirmation"),
    most=0,
)
def prune(client: Client, words: list[str], *, filter: list[str], force: bool) -> None:
    warning = "WARNING! This will remove all custom networks not used by at least one container."
    if not force and not confirm(warning):
        raise Failure("network prune has been cancelled")
    prune_networks(client, filter)


def prune_networks(client: Client, filter: list[str]) -> None:
    report = client.json("POST", "/networks/prune", query={"filters": encode_filters(filter)})
    report_pruned("Networks", report.get("NetworksDeleted"))
