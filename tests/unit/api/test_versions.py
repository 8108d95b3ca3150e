"""What a request or an answer means in the API version of its client."""

from typing import Any

import msgspec
import pytest
from aiohttp.test_utils import make_mocked_request

from bennu.api.http.middleware import clean_path
from bennu.api.http.query import check_query_text
from bennu.api.http.terminal import read_size
from bennu.api.http.versions import parse_version
from bennu.api.routes.containers import ContainerCreateBody
from bennu.api.routes.older_clients import (
    MAC_ADDRESS_WARNING,
    VOLUME_DRIVER_WARNING,
    drop_newer_of_service,
    translate,
)
from bennu.api.routes.system import info_as_of
from bennu.api.shapes.image import config_json
from bennu.api.shapes.platforms import PlatformShape, decode_platform, only_platform
from bennu.cluster.api_types import ServiceSpecWire
from bennu.decoding import decode
from bennu.errors import InvalidParameter
from bennu.model import HostConfig, NetworkingConfig

NEWEST = 51


def meant(
    body: dict[str, Any], minor: int = NEWEST, *, cgroup_v2: bool = True
) -> tuple[ContainerCreateBody, HostConfig, dict[str, Any], list[str]]:
    """What a create body means for a client of API 1.`minor`: itself, its host part, its endpoints, warnings."""
    read = decode(msgspec.json.encode(body), ContainerCreateBody)
    assert read is not None
    host, networking = read.host_config or HostConfig(), read.networking_config or NetworkingConfig()
    warnings = translate(read, host, networking, minor, cgroup_v2=cgroup_v2)
    return read, host, networking.endpoints_config or {}, warnings


def refusal(body: dict[str, Any], minor: int = NEWEST) -> str:
    with pytest.raises(InvalidParameter) as refused:
        meant(body, minor)
    return str(refused.value)


def mount(**fields: Any) -> dict[str, Any]:
    return {"HostConfig": {"Mounts": [fields]}}


# --- create -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "given", "since", "before"),
    [
        ("auto_remove", {"AutoRemove": True}, 25, False),
        ("ipc_mode", {}, 40, "shareable"),
        ("console_size", {"ConsoleSize": [1, 2]}, 42, [0, 0]),
        ("annotations", {"Annotations": {"a": "b"}}, 43, None),
    ],
)
def test_fields_of_the_host_that_came_later(field: str, given: dict[str, Any], since: int, before: object) -> None:
    assert getattr(meant({"HostConfig": given}, since - 1)[1], field) == before
    assert getattr(meant({"HostConfig": given}, since)[1], field) == getattr(meant({"HostConfig": given})[1], field)
    assert getattr(meant({"HostConfig": given}, since)[1], field) != before


def test_control_group_namespaces_came_with_1_41_and_are_the_hosts_before_where_docker_would_not_make_one() -> None:
    def mode(minor: int, given: str = "", *, cgroup_v2: bool) -> str:
        return meant({"HostConfig": {"CgroupnsMode": given}}, minor, cgroup_v2=cgroup_v2)[1].cgroupns_mode

    assert mode(40, cgroup_v2=False) == "host"
    assert mode(40, "private", cgroup_v2=False) == "private"
    assert (mode(40, cgroup_v2=True), mode(41, cgroup_v2=False)) == ("", "")


def test_fields_of_health_checks_and_endpoints_that_came_later() -> None:
    check = {"Healthcheck": {"StartInterval": 5}}
    found = meant(check, 43)[0].healthcheck
    assert found and found.start_interval == 0
    found = meant(check, 44)[0].healthcheck
    assert found and found.start_interval == 5
    endpoints = {"NetworkingConfig": {"EndpointsConfig": {"n": {"GwPriority": 7}}}}
    assert meant(endpoints, 47)[2]["n"].gw_priority == 0
    assert meant(endpoints, 48)[2]["n"].gw_priority == 7


def test_the_default_network_is_called_bridge_from_here_on() -> None:
    _, host, endpoints, _ = meant({"NetworkingConfig": {"EndpointsConfig": {"default": {"Aliases": ["a"]}}}})
    assert host.network_mode == "bridge"
    assert endpoints["bridge"].aliases == ["a"]


def test_several_networks_at_creation_came_with_1_44() -> None:
    body = {"NetworkingConfig": {"EndpointsConfig": {"b": {}, "a": None}}}
    assert refusal(body, 43) == "Container cannot be created with multiple network endpoints: a, b"
    assert set(meant(body, 44)[2]) == {"a", "b"}


@pytest.mark.parametrize(
    ("minor", "fields", "words"),
    [
        (51, {"Type": "bind", "VolumeOptions": {}}, 'VolumeOptions must not be specified on mount type "bind"'),
        (42, {"Type": "volume", "BindOptions": {}}, 'BindOptions must not be specified on mount type "volume"'),
        (51, {"Type": "volume", "TmpfsOptions": {}}, 'TmpfsOptions must not be specified on mount type "volume"'),
        (
            43,
            {"Type": "bind", "BindOptions": {"ReadOnlyForceRecursive": True}},
            "BindOptions.ReadOnlyForceRecursive needs API v1.44 or newer",
        ),
        (44, {"Type": "volume", "VolumeOptions": {"Subpath": "a"}}, "VolumeOptions.Subpath needs API v1.45 or newer"),
        (47, {"Type": "image"}, 'Mount type "Image" needs API v1.48 or newer'),
    ],
)
def test_mounts_that_cannot_be_meant(minor: int, fields: dict[str, Any], words: str) -> None:
    assert refusal(mount(**fields), minor) == words


def test_options_of_mounts_that_older_clients_cannot_have_meant_are_dropped() -> None:
    options = {"NonRecursive": True, "CreateMountpoint": True}
    old = (meant(mount(Type="bind", BindOptions=options, VolumeOptions={}), 39)[1].mounts or [])[0]
    assert old.bind_options and not old.bind_options.non_recursive and not old.bind_options.create_mountpoint
    assert old.volume_options is None
    new = (meant(mount(Type="bind", BindOptions=options), 42)[1].mounts or [])[0]
    assert new.bind_options and new.bind_options.non_recursive and new.bind_options.create_mountpoint


def test_a_volume_driver_that_no_mount_uses_is_warned_of() -> None:
    body = {"HostConfig": {"VolumeDriver": "local", "Mounts": [{"Type": "volume"}]}}
    assert meant(body, 48)[3] == [VOLUME_DRIVER_WARNING]
    assert meant(body, 47)[3] == []
    body["HostConfig"]["Mounts"] = [{"Type": "volume", "VolumeOptions": {"DriverConfig": {"Name": "local"}}}]
    assert meant(body, 48)[3] == []


def test_the_address_of_a_container_becomes_that_of_its_own_network() -> None:
    body: dict[str, Any] = {"MacAddress": "02:42:ac:11:00:42"}
    _, _, endpoints, warnings = meant(body, 43)
    assert endpoints["bridge"].mac_address == body["MacAddress"]
    assert warnings == []
    assert meant(body, 44)[3] == [MAC_ADDRESS_WARNING]
    elsewhere = body | {"NetworkingConfig": {"EndpointsConfig": {"n": {}}}}
    assert meant(elsewhere, 43)[2]["n"].mac_address == body["MacAddress"]
    assert "must match the identity of a network" in refusal(elsewhere, 44)
    other = {"NetworkingConfig": {"EndpointsConfig": {"bridge": {"MacAddress": "02:42:ac:11:00:43"}}}}
    assert "must match the endpoint-specific MAC address" in refusal(body | other)
    assert meant(other, 43)[2]["bridge"].mac_address == ""
    assert refusal(body | {"HostConfig": {"NetworkMode": "host"}}, 43) == (
        "conflicting options: mac-address and the network mode"
    )


# --- services ---------------------------------------------------------------------------------------------------


def test_fields_of_services_that_came_later() -> None:
    raw = (
        b'{"TaskTemplate":{"ContainerSpec":{"Sysctls":{"a":"b"},"CapabilityAdd":["x"],"Ulimits":[{"Name":"a"}],'
        b'"Privileges":{"NoNewPrivileges":true,"Seccomp":{"Mode":"unconfined"}},"Healthcheck":{"StartInterval":5},'
        b'"OomScoreAdj":3,"Mounts":[{"TmpfsOptions":{"Options":[["a"]]}}]},"Placement":{"MaxReplicas":2},'
        b'"Resources":{"Limits":{"Pids":9}}},"Mode":{"ReplicatedJob":{}}}'
    )

    def kept(minor: int) -> list[str]:
        spec = decode(raw, ServiceSpecWire)
        assert spec is not None
        drop_newer_of_service(spec, minor)
        return sorted(set(_names(msgspec.to_builtins(spec))))

    everything = kept(46)
    assert set(everything) - set(kept(45)) == {"OomScoreAdj", "Options"}
    assert set(kept(44)) - set(kept(43)) == {"NoNewPrivileges", "Seccomp", "Mode.Seccomp", "StartInterval"}
    assert set(kept(41)) - set(kept(40)) == {
        *("CapabilityAdd", "Pids", "ReplicatedJob"),
        *("Ulimits", "Name", "Soft", "Hard"),
    }
    assert set(kept(40)) - set(kept(39)) == {"MaxReplicas", "Sysctls", "a"}


def _names(tree: Any, above: str = "") -> list[str]:
    if isinstance(tree, list):
        return [name for entry in tree for name in _names(entry)]
    if not isinstance(tree, dict):
        return []
    own = [f"{key}.{above}" if key == "Mode" and above else key for key in tree]
    return [*own, *(name for key, entry in tree.items() for name in _names(entry, key))]


# --- answers ----------------------------------------------------------------------------------------------------


def test_info_has_what_each_version_looks_for() -> None:
    commits = {name: {"ID": "x"} for name in ("ContainerdCommit", "RuncCommit", "InitCommit")}
    facts = commits | {"RegistryConfig": {"Mirrors": []}, "SecurityOptions": ["name=seccomp,profile=builtin"]}
    assert info_as_of(facts, 50) == facts
    assert info_as_of(facts, 49) == facts | {"BridgeNfIptables": False, "BridgeNfIp6tables": False}
    assert info_as_of(facts, 48)["RuncCommit"] == {"ID": "x", "Expected": "x"}
    assert info_as_of(facts, 46)["RegistryConfig"]["AllowNondistributableArtifactsCIDRs"] is None
    assert info_as_of(facts, 24)["SecurityOptions"] == ["seccomp"]
    newer = facts | {"FirewallBackend": {"Driver": "nftables"}, "DiscoveredDevices": []}
    assert info_as_of(newer, 50) == newer
    assert newer.keys() - info_as_of(newer, 49).keys() == {"DiscoveredDevices"}
    assert newer.keys() - info_as_of(newer, 48).keys() == {"DiscoveredDevices", "FirewallBackend"}


def test_an_images_configuration_has_nothing_of_containers_since_1_50() -> None:
    raw = {"config": {"Cmd": ["x"], "Hostname": "h"}}
    assert config_json(raw, 49)["Hostname"] == "h"
    assert config_json(raw, 49)["AttachStdin"] is False
    new = config_json(raw, 50)
    assert set(new) == {"User", "Env", "Cmd", "Volumes", "WorkingDir", "Entrypoint", "OnBuild", "Labels"}


# --- platforms, paths, queries, sizes ---------------------------------------------------------------------------


def test_platforms_are_read_and_matched() -> None:
    wanted = decode_platform('{"OS":"linux","architecture":"aarch64","variant":"v8"}')
    assert str(wanted) == "linux/aarch64/v8"
    assert wanted.fits({"os": "linux", "architecture": "arm64"})
    assert not wanted.fits({"os": "linux", "architecture": "arm64", "variant": "v9"})
    assert not wanted.fits({"os": "linux", "architecture": "amd64"})
    assert only_platform([]) is None
    assert only_platform([""]) is None
    assert only_platform(['{"os":"linux","architecture":"amd64"}']) == PlatformShape(os="linux", architecture="amd64")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["{}"], "both OS and Architecture must be provided"),
        (['{"variant":"v8"}'], "optional platform fields provided, but OS and Architecture are missing"),
        (["linux/amd64"], "failed to parse platform: invalid character 'l' looking for beginning of value"),
        (["{}", "{}"], "multiple platform parameters not supported"),
    ],
)
def test_what_is_no_platform(given: list[str], words: str) -> None:
    with pytest.raises(InvalidParameter) as refused:
        only_platform(given)
    assert str(refused.value) == words


@pytest.mark.parametrize(
    ("path", "clean"),
    [
        ("//version", "/version"),
        ("/v1.44/../version", "/version"),
        ("/./a//b/", "/a/b/"),
        ("/../..", "/"),
        ("/a/b", "/a/b"),
        ("/", "/"),
        ("/a/", "/a/"),
    ],
)
def test_paths_are_cleaned(path: str, clean: str) -> None:
    assert clean_path(path) == clean


@pytest.mark.parametrize(
    ("query", "words"),
    [("a=1;b=2", "invalid semicolon separator in query"), ("a=%zz", 'invalid URL escape "%zz"'), ("a=%4", '"%4"')],
)
def test_queries_that_go_does_not_parse(query: str, words: str) -> None:
    with pytest.raises(InvalidParameter, match=words):
        check_query_text(query)
    check_query_text("a=%3B&b=%25")


@pytest.mark.parametrize(
    ("h", "words"),
    [
        ("", 'height "": invalid syntax'),
        ("%2B5", r'height "\+5": invalid syntax'),
        ("-100", 'height "-100": value out of range'),
        ("4294967296", 'height "4294967296": value out of range'),
    ],
)
def test_bad_sizes_are_told_in_gos_words(h: str, words: str) -> None:
    with pytest.raises(InvalidParameter, match=f"^invalid resize {words}$"):
        read_size(make_mocked_request("POST", f"/x?h={h}&w=1"))


def test_of_a_size_as_much_counts_as_the_kernel_keeps() -> None:
    assert read_size(make_mocked_request("POST", "/x?h=70000&w=65535")) == (70000 - 65536, 65535)


@pytest.mark.parametrize(
    ("version", "minor"), [("1.24", 24), ("1.51", 51), ("1.51.0", 51), ("01.051", 51), ("1.50.9", 50)]
)
def test_versions_are_compared_as_numbers(version: str, minor: int) -> None:
    assert parse_version(version) == minor


@pytest.mark.parametrize("version", ["1.51.1", "1.52", "1.23", "1.", "..", "0", "2"])
def test_versions_that_are_not_spoken(version: str) -> None:
    with pytest.raises(InvalidParameter, match="client version"):
        parse_version(version)
