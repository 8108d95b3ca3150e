"""JSON as Go reads it: keys in any case, null as nothing given, errors in Go's words."""

import gc
import time
import tracemalloc
from typing import Any

import msgspec
import pytest

from bennu.api.routes.containers import ContainerCreateBody
from bennu.api.routes.secrets import BlobBody
from bennu.api.routes.volumes import VolumeCreateBody
from bennu.cluster.api_types import ServiceSpecWire, SwarmSpecWire
from bennu.decoding import decode, fold
from bennu.errors import InvalidParameter
from bennu.network import NetworkRequest


def create(text: str | bytes) -> ContainerCreateBody:
    found = decode(text if isinstance(text, bytes) else text.encode(), ContainerCreateBody)
    assert found is not None
    return found


def complaint(text: str, shape: Any = ContainerCreateBody) -> str:
    with pytest.raises(InvalidParameter) as refused:
        decode(text.encode(), shape)
    return str(refused.value)


# --- keys -------------------------------------------------------------------------------------------------------


def test_keys_match_in_any_case() -> None:
    body = create(
        '{"image":"busybox","USER":"1000","hostConfig":{"memory":7,"capDrop":["ALL"],"ReadOnlyRootfs":true,'
        '"NanoCPUs":5,"restartpolicy":{"name":"always"},"Dns":["1.1.1.1"],"portBindings":{"80/tcp":[{"hostPort":"8"}]}},'
        '"networkingconfig":{"endpointsConfig":{"Net":{"ipamConfig":{"ipv4address":"10.0.0.2"}}}}}'
    )
    host = body.host_config
    assert host is not None
    assert (body.image, body.user, host.memory, host.cap_drop, host.readonly_rootfs) == (
        "busybox",
        "1000",
        7,
        ["ALL"],
        True,
    )
    assert (host.nano_cpus, host.restart_policy.name, host.dns) == (5, "always", ["1.1.1.1"])
    assert host.port_bindings is not None
    assert (host.port_bindings["80/tcp"] or [])[0].host_port == "8"
    assert body.networking_config is not None
    endpoint = (body.networking_config.endpoints_config or {})["Net"]
    assert endpoint is not None
    assert endpoint.ipam_config is not None
    assert endpoint.ipam_config.ipv4_address == "10.0.0.2"


def test_keys_of_maps_are_data_and_keep_their_case() -> None:
    body = create('{"Labels":{"Image":"x","image":"y"},"hostconfig":{"sysctls":{"Net.A":"1"}}}')
    assert body.labels == {"Image": "x", "image": "y"}
    assert body.host_config is not None
    assert body.host_config.sysctls == {"Net.A": "1"}


def test_the_last_of_several_keys_for_one_field_counts() -> None:
    assert create('{"Image":"a","image":"b"}').image == "b"
    assert create('{"image":"b","Image":"a"}').image == "a"
    assert create('{"Image":"a","Image":"b"}').image == "b"
    host = create('{"HostConfig":{"Memory":1,"CpuShares":2},"hostconfig":{"Memory":3}}').host_config
    assert host is not None
    assert (host.memory, host.cpu_shares) == (3, 2)


def test_unknown_keys_are_passed_over_whatever_they_hold() -> None:
    assert create('{"Image":"a","Bogus":{"x":[1e400,99999999999999999999]},"im age":1,"\u0131mage":2}').image == "a"


def test_keys_fold_as_unicode_says() -> None:
    assert fold("\u017fyctls") == fold("SYCTLS")
    assert fold("networ\u212aid") == fold("NetworkID")
    assert fold("\u0131mage") != fold("Image")  # the dotless i is a letter of its own
    assert fold("a\u00df") != fold("ass")


def test_networks_volumes_secrets_and_services_too() -> None:
    network = decode(
        b'{"name":"n","enableipv6":true,"ipam":{"config":[{"subnet":"10.0.0.0/8","iprange":"r"}]}}', NetworkRequest
    )
    assert network is not None
    assert network.ipam is not None
    assert (network.name, network.enable_ipv6, (network.ipam.config or [])[0].ip_range) == ("n", True, "r")
    volume = decode(b'{"name":"v","driveropts":{"Type":"tmpfs"}}', VolumeCreateBody)
    assert volume is not None
    assert (volume.name, volume.driver_opts) == ("v", {"Type": "tmpfs"})
    blob = decode(b'{"templating":{"name":"golang"}}', BlobBody)
    assert blob is not None
    assert blob.templating is not None
    assert blob.templating.name == "golang"
    swarm = decode(b'{"orchestration":{"taskHistoryRetentionLimit":0},"caConfig":{"nodecertexpiry":5}}', SwarmSpecWire)
    assert msgspec.to_builtins(swarm) == {
        "Orchestration": {"TaskHistoryRetentionLimit": 0},
        "CAConfig": {"NodeCertExpiry": 5},
    }
    service = decode(
        b'{"mode":{"replicated":{"replicas":3}},"taskTemplate":{"containerspec":{"privileges":{"seccomp":{"mode":"unconfined"}}}}}',
        ServiceSpecWire,
    )
    assert msgspec.to_builtins(service) == {
        "TaskTemplate": {"ContainerSpec": {"Privileges": {"Seccomp": {"Mode": "unconfined"}}}},
        "Mode": {"Replicated": {"Replicas": 3}},
    }


# --- null -------------------------------------------------------------------------------------------------------


def test_null_is_nothing_given() -> None:
    body = create(
        '{"Image":"a","image":null,"Tty":null,"ExposedPorts":{"80/tcp":null},"Volumes":{"/x":null},"Labels":{"a":null},'
        '"Cmd":["a",null],"Healthcheck":null,"StopTimeout":null,'
        '"HostConfig":{"Memory":null,"Devices":[null],"Mounts":[null],"LogConfig":null,"ConsoleSize":null}}'
    )
    assert (body.image, body.tty, body.exposed_ports, body.volumes) == ("a", False, {"80/tcp": {}}, {"/x": {}})
    assert (body.labels, body.cmd, body.healthcheck, body.stop_timeout) == ({"a": ""}, ["a", ""], None, None)
    host = body.host_config
    assert host is not None
    assert (host.memory, host.log_config.type, host.console_size) == (0, "", [0, 0])
    assert host.devices is not None
    assert host.devices[0].path_on_host == ""
    service = decode(b'{"Labels":{"a":null},"TaskTemplate":{"Placement":{"Platforms":[null]}}}', ServiceSpecWire)
    assert service is not None
    assert service.labels == {"a": ""}
    assert decode(b"null", ContainerCreateBody) is None


# --- what is refused --------------------------------------------------------------------------------------------

BODY = "Go struct field ContainerCreateBody."
HOST = "Go struct field HostConfig.HostConfig."
SYNTAX = {
    "{invalid": "invalid JSON: invalid character 'i' looking for beginning of object key string",
    "{": "invalid JSON: unexpected EOF",
    '{"Image":"a"} x': "unexpected content after JSON",
}
TYPES = {
    "[]": "array into Go value of type ContainerCreateBody",
    "1 2": "number into Go value of type ContainerCreateBody",
    '{"Image":1}': f"number into {BODY}Image of type string",
    '{"Image":1} x': f"number into {BODY}Image of type string",
    '{"Tty":"yes"}': f"string into {BODY}Tty of type bool",
    '{"Labels":{"a":[]}}': f"array into {BODY}Labels of type string",
    '{"HostConfig":{"Memory":"1"}}': f"string into {HOST}Memory of type int64",
    '{"hostconfig":{"memory":1.0}}': f"number 1.0 into {HOST}Memory of type int64",
    '{"HostConfig":{"Memory":1e3}}': f"number 1e3 into {HOST}Memory of type int64",
    '{"HostConfig":{"Memory":true}}': f"bool into {HOST}Memory of type int64",
    '{"HostConfig":{"Memory":9223372036854775808}}': "number 9223372036854775808 into Go value of type int64",
    '{"HostConfig":{"Binds":"x"}}': f"string into {HOST}Binds of type []string",
}
WRONG = SYNTAX | {text: f"invalid JSON: json: cannot unmarshal {words}" for text, words in TYPES.items()}


@pytest.mark.parametrize(("text", "words"), WRONG.items())
def test_what_does_not_fit_is_told_in_gos_words(text: str, words: str) -> None:
    assert complaint(text) == words


def test_space_and_closing_brackets_may_follow_a_value() -> None:
    assert create('{"Image":"a"} \r\n\t').image == "a"
    assert create('{"Image":"a"}]').image == "a"


def test_what_is_no_unicode_becomes_the_replacement_character() -> None:
    assert create(b'{"Image":"a\xff","User":"\\ud800"}').image == "a\ufffd"


@pytest.mark.slow
def test_a_large_body_is_decoded_about_as_fast_as_without_any_of_this() -> None:
    raw = msgspec.json.encode({"Image": "a", "Labels": {f"com.example.{n}": "x" * 20 for n in range(150_000)}})

    def took(work: Any) -> float:
        began = time.perf_counter()
        work()
        return time.perf_counter() - began

    plain = min(took(lambda: msgspec.json.decode(raw, type=ContainerCreateBody)) for _ in range(5))
    ours = min(took(lambda: decode(raw, ContainerCreateBody)) for _ in range(5))
    assert ours < 8 * plain + 0.05, (ours, plain)


def large(text: str) -> str:
    """Fill the `%s` in a JSON text with a list of more than 1 MB that nobody wants."""
    return text % f"[{','.join(['[]'] * 400_000)}]"


def test_a_large_body_is_read_like_a_small_one() -> None:
    body = create(large('{"IMAGE":"a","HostConfig":null,"hostConfig":{"memory":7,"X":%s,"dns":null},"Cmd":"b"}'))
    assert body.host_config is not None
    assert (body.image, body.host_config.memory, body.host_config.dns, body.cmd) == ("a", 7, None, ["b"])
    assert create(large('{"X":%s}  ]')) == create("{}")
    assert complaint(large('{"HostConfig":{"Memory":1.5,"X":%s}}')) == complaint('{"HostConfig":{"Memory":1.5}}')
    assert complaint(large('{"HostConfig":%s}')) == complaint('{"HostConfig":[]}')


def test_of_a_large_body_nothing_is_made_that_nobody_has_at_whatever_depth() -> None:
    raw = large('{"HostConfig":{"Mounts":[],"X":%s}}').encode()
    tracemalloc.start()
    try:
        decode(raw, ContainerCreateBody)
        assert tracemalloc.get_traced_memory()[1] < 3 * len(raw)  # 400,000 lists would take 20 times as much
    finally:
        tracemalloc.stop()


def test_garbage_is_looked_for_again_after_a_large_body() -> None:
    assert gc.isenabled()
    complaint(large('{"Image":1,"X":%s}'))
    assert gc.isenabled()


def test_a_list_of_words_may_come_as_one_text() -> None:
    body = create('{"Cmd":"a b","Entrypoint":"/e","Shell":"","HostConfig":{"CapAdd":"NET_ADMIN","capdrop":"ALL"}}')
    assert (body.cmd, body.entrypoint, body.shell) == (["a b"], ["/e"], [""])
    assert body.host_config is not None
    assert (body.host_config.cap_add, body.host_config.cap_drop) == (["NET_ADMIN"], ["ALL"])


@pytest.mark.parametrize("key", ["Env", "OnBuild"])
def test_other_lists_of_text_are_lists(key: str) -> None:
    assert "cannot unmarshal string into Go struct field" in complaint(f'{{"{key}":"A=b"}}')


def test_words_that_are_no_text_are_refused() -> None:
    assert complaint('{"Cmd":[1]}') and complaint('{"Cmd":1}') and complaint('{"HostConfig":{"CapAdd":{}}}')
