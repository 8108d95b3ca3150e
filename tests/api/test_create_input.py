"""What a create request may hold, what it is told when it holds something else, and what is filled in."""

from typing import Any

import msgspec
import pytest

from bennu.api.routes.containers import check_endpoints
from bennu.decoding import decode
from bennu.engine.defaults import fill_host_defaults, merge_image
from bennu.engine.names import random_name
from bennu.engine.validate import discard_unsupported, split_security_option, validate_create, validate_name
from bennu.errors import BennuError, InvalidParameter, NotImplementedHere
from bennu.model import ContainerConfig, EndpointSettings, HostConfig, ImageConfig, NetworkingConfig
from bennu.network import parse_link
from bennu.runtime.container_defaults import ContainerDefaults

MIB = 1024 * 1024


def host(**fields: Any) -> HostConfig:
    """From wire names, as a client would send them."""
    return msgspec.convert(fields, HostConfig)


def config(**fields: Any) -> ContainerConfig:
    return msgspec.convert({"Cmd": ["true"], **fields}, ContainerConfig)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"Cmd": None}, "no command specified"),
        ({"Cmd": []}, "no command specified"),
        ({"WorkingDir": "rel"}, "the working directory 'rel' is invalid, it needs to be an absolute path"),
        ({"Env": [""]}, "invalid environment variable: "),
        ({"Env": ["=x"]}, "invalid environment variable: =x"),
        ({"StopSignal": "BOGUS"}, "invalid signal: BOGUS"),
        ({"ExposedPorts": {"zz": {}}}, 'invalid port specification: "zz"'),
        ({"ExposedPorts": {"": {}}}, 'invalid port specification: ""'),
        ({"Hostname": "h" * 65}, f'hostname "{"h" * 65}" is too long (maximum 64 bytes)'),
        ({"Cmd": ["a\0b"]}, "invalid configuration: a NUL byte in Cmd"),
        ({"WorkingDir": "/a\0b"}, "invalid configuration: a NUL byte in WorkingDir"),
        ({"Volumes": {"/a\0b": {}}}, "invalid configuration: a NUL byte in Volumes"),
        ({"Healthcheck": {"Interval": 999_999}}, "Interval in Healthcheck cannot be less than 1ms"),
        ({"Healthcheck": {"Timeout": -1}}, "Timeout in Healthcheck cannot be less than 1ms"),
        ({"Healthcheck": {"StartPeriod": 1}}, "StartPeriod in Healthcheck cannot be less than 1ms"),
        ({"Healthcheck": {"StartInterval": 1}}, "StartInterval in Healthcheck cannot be less than 1ms"),
        ({"Healthcheck": {"Retries": -1}}, "Retries in Healthcheck cannot be negative"),
        (
            {"Healthcheck": {"Test": ["CMD"]}},
            'Test in Healthcheck has no command: "CMD" needs at least one argument',
        ),
    ],
)
def test_a_bad_config_is_refused_in_dockerds_words(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidParameter) as refused:
        validate_create(config(**fields), HostConfig())
    assert str(refused.value) == message


POLICY = "invalid restart policy: "


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"RestartPolicy": {"Name": "bogus"}},
            POLICY + "unknown policy 'bogus'; use one of 'no', 'always', 'on-failure', or 'unless-stopped'",
        ),
        (
            {"RestartPolicy": {"Name": "always", "MaximumRetryCount": 1}},
            POLICY + "maximum retry count can only be used with 'on-failure'",
        ),
        (
            {"RestartPolicy": {"Name": "no", "MaximumRetryCount": -1}},
            POLICY + "maximum retry count can only be used with 'on-failure' and cannot be negative",
        ),
        (
            {"RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": -1}},
            POLICY + "maximum retry count cannot be negative",
        ),
        (
            {"RestartPolicy": {"Name": "always"}, "AutoRemove": True},
            "can't create 'AutoRemove' container with restart policy",
        ),
        ({"Memory": 6 * MIB - 1}, "Minimum memory limit allowed is 6MB"),
        (
            {"Memory": 10 * MIB, "MemorySwap": 9 * MIB},
            "Minimum memoryswap limit should be larger than memory limit, see usage",
        ),
        (
            {"MemorySwap": 10 * MIB},
            "You should always set the Memory limit when using Memoryswap limit, see usage",
        ),
        ({"MemorySwappiness": 101}, "Invalid value: 101, valid memory swappiness range is 0-100"),
        (
            {"NanoCpus": 2 * 10**9 + 1},
            "range of CPUs is from 0.01 to 2.00, as there are only 2 CPUs available",
        ),
        (
            {"NanoCpus": 10**9, "CpuPeriod": 1000},
            "Conflicting options: Nano CPUs and CPU Period cannot both be set",
        ),
        (
            {"NanoCpus": 10**9, "CpuQuota": 1000},
            "Conflicting options: Nano CPUs and CPU Quota cannot both be set",
        ),
        ({"CpuQuota": 999}, "CPU cfs quota can not be less than 1ms (i.e. 1000)"),
        ({"CpusetCpus": "0-x"}, "Invalid value 0-x for cpuset cpus: invalid format: 0-x"),
        ({"CpusetMems": "999"}, "Requested memory nodes are not available - requested 999, available: 0"),
        ({"Memory": -1}, "Minimum memory limit allowed is 6MB"),
        ({"Tmpfs": {"/": ""}}, "invalid specification: destination can't be '/'"),
        ({"Tmpfs": {"rel": ""}}, "invalid mount path: 'rel' mount path must be absolute"),
        ({"PortBindings": {"zz": [{}]}}, 'invalid port specification: "zz"'),
        ({"PortBindings": {"80/tcp": [{"HostPort": "x"}]}}, 'invalid port specification: "x"'),
        ({"Isolation": "hyperv"}, "Invalid isolation: \"hyperv\" - linux only supports 'default'"),
        ({"CpusetCpus": "0-2"}, "Requested CPUs are not available - requested 0-2, available: 0-1"),
        ({"ShmSize": -1}, "SHM size can not be less than 0"),
        ({"OomScoreAdj": 2000}, "Invalid value 2000, range for oom score adj is [-1000, 1000]"),
        ({"CapAdd": ["bogus"]}, 'invalid CapAdd: unknown capability: "CAP_BOGUS"'),
        ({"CapDrop": ["CAP_BOGUS"]}, 'invalid CapDrop: unknown capability: "CAP_BOGUS"'),
        ({"ExtraHosts": ["bogus"]}, 'bad format for add-host: "bogus"'),
        ({"ExtraHosts": ["a:nope"]}, 'invalid IP address in add-host: "nope"'),
        ({"Dns": ["nope"]}, "bad nameserver address nope"),
        ({"Dns": [""]}, "bad nameserver address "),
        ({"Runtime": "bogus"}, "unknown or invalid runtime name: bogus"),
        ({"NetworkMode": "container:"}, "invalid network mode: invalid container format container:<name|id>"),
        ({"PidMode": "bogus"}, "invalid PID mode: bogus"),
        ({"IpcMode": "bogus"}, "invalid IPC mode: bogus"),
        ({"UTSMode": "bogus"}, "invalid UTS mode: bogus"),
        (
            {"LogConfig": {"Type": "bogus"}},
            'error looking up logging plugin bogus: plugin "bogus" not found',
        ),
        (
            {"LogConfig": {"Type": "json-file", "Config": {"bogus": "1"}}},
            "unknown log opt 'bogus' for json-file log driver",
        ),
    ],
)
def test_a_bad_host_config_is_refused_in_dockerds_words(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidParameter) as refused:
        validate_create(config(), host(**fields), ncpu=2)
    assert str(refused.value) == message


@pytest.mark.parametrize(
    ("what", "config_fields", "host_fields"),
    [
        ("hostname", {"Hostname": "a\n10.0.0.1 db"}, {}),
        ("hostname", {"Domainname": "a\n10.0.0.1 db"}, {}),
        ("extra host", {}, {"ExtraHosts": ["a\n10.0.0.1 db:1.2.3.4"]}),
        ("extra host", {}, {"ExtraHosts": ["a:fe80::1%x\n10.0.0.1 db"]}),
        ("DNS server", {}, {"Dns": ["fe80::1%x\nnameserver 10.0.0.1"]}),
        ("DNS search domain", {}, {"DnsSearch": ["a\nnameserver 10.0.0.1"]}),
        ("DNS option", {}, {"DnsOptions": ["ndots:1\rnameserver 10.0.0.1"]}),
    ],
)
def test_nobody_writes_lines_of_choice_into_hosts_or_resolv_conf(
    what: str, config_fields: dict[str, Any], host_fields: dict[str, Any]
) -> None:
    with pytest.raises(InvalidParameter, match=f"invalid {what} .* control character"):
        validate_create(config(**config_fields), host(**host_fields))


@pytest.mark.parametrize("alias", ["a\nb", "a\x1b[0m"])
def test_no_name_on_a_network_has_a_control_character(alias: str) -> None:
    with pytest.raises(InvalidParameter, match=r"invalid network alias .* control character"):
        check_endpoints(NetworkingConfig(endpoints_config={"net1": EndpointSettings(aliases=["good", alias])}))


@pytest.mark.parametrize("link", ["db:a\nb", "d\rb:a", "db:\x1b[0m"])
def test_nobody_writes_lines_of_choice_with_a_link(link: str) -> None:
    with pytest.raises(InvalidParameter, match="bad format for links"):
        parse_link(link)


def test_a_link_has_one_name() -> None:
    link = "db:two names"
    with pytest.raises(InvalidParameter, match=r"invalid alias .* of a link: it has a space"):
        validate_create(config(), host(Links=[link]))
    with pytest.raises(InvalidParameter, match="of a link"):
        check_endpoints(NetworkingConfig(endpoints_config={"net1": EndpointSettings(links=["db", link])}))


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("bogus", 'invalid --security-opt 1: "bogus"'),
        ("a=b", 'invalid --security-opt 2: "a=b"'),
        ("no-new-privileges=maybe", 'invalid --security-opt 2: "no-new-privileges=maybe"'),
    ],
)
def test_a_bad_security_option_is_a_500_as_in_dockerd(option: str, message: str) -> None:
    with pytest.raises(BennuError) as refused:
        validate_create(config(), host(SecurityOpt=[option]))
    assert type(refused.value) is BennuError
    assert str(refused.value) == message


@pytest.mark.parametrize("option", ["seccomp={}", "seccomp:{", 'seccomp={"defaultAction":"SCMP_ACT_MAYBE"}'])
def test_a_broken_seccomp_profile_is_refused_at_once(option: str) -> None:
    with pytest.raises(InvalidParameter, match=r"^Decoding seccomp profile failed: "):
        validate_create(config(), host(SecurityOpt=[option]))


def test_security_options_have_an_old_and_a_new_separator() -> None:
    assert split_security_option("seccomp:unconfined") == ("seccomp", "unconfined")
    assert split_security_option('seccomp={"a":"b=c"}') == ("seccomp", '{"a":"b=c"}')
    assert split_security_option("no-new-privileges") == ("no-new-privileges", "true")


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"StorageOpt": {"size": "1G"}}, "HostConfig.StorageOpt"),
        ({"LogConfig": {"Type": "syslog"}}, "the log driver syslog"),
    ],
)
def test_what_is_not_honoured_is_refused_by_name(fields: dict[str, Any], named: str) -> None:
    with pytest.raises(NotImplementedHere, match=named):
        validate_create(config(), host(**fields))


@pytest.mark.parametrize(
    "fields",
    [
        {"RestartPolicy": {"Name": "", "MaximumRetryCount": 7}},
        {"RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 0}},
        {"RestartPolicy": {"Name": "no"}, "AutoRemove": True},
        {"Memory": 6 * MIB, "MemorySwap": -1},
        {"CpusetCpus": "0,1"},
        {"NanoCpus": 2 * 10**9},
        {"ExtraHosts": ["a:host-gateway", "b:::1", "c:[::1]"]},
        {"CapAdd": ["ALL", "net_admin", "CAP_SYS_TIME"]},
        {"SecurityOpt": ["seccomp=unconfined", "no-new-privileges:true"]},
        {"NetworkMode": "container:other", "PidMode": "host", "IpcMode": "shareable", "UTSMode": "host"},
    ],
)
def test_what_dockerd_accepts_is_accepted(fields: dict[str, Any]) -> None:
    assert validate_create(config(), host(**fields), ncpu=2) == []


@pytest.mark.parametrize("signal", ["term", "SIGTERM", "15", "99"])
def test_stop_signals_are_not_range_checked(signal: str) -> None:
    validate_create(config(StopSignal=signal), HostConfig())


def test_exactly_a_millisecond_is_a_health_interval() -> None:
    validate_create(config(Healthcheck={"Test": ["CMD", "x"], "Interval": 10**6}), HostConfig())


def test_the_working_directory_is_cleaned() -> None:
    asked = config(WorkingDir="//a/../b/")
    validate_create(asked, HostConfig())
    assert asked.working_dir == "/b"


def test_warnings_say_what_will_not_have_the_effect_hoped_for() -> None:
    asked = host(NetworkMode="host", PortBindings={"80/tcp": [{"HostPort": "80"}]}, OomKillDisable=True)
    assert validate_create(config(), asked) == [
        "OOM killer is disabled for the container, but no memory limit is set, "
        "this can result in the system running out of resources.",
        "Published ports are discarded when using host network mode",
    ]


def test_what_the_kernel_cannot_do_is_left_out_with_a_warning() -> None:
    asked = host(Memory=10 * MIB, BlkioWeight=100)
    assert discard_unsupported(asked, swap_limit=True, blkio_weight=True) == []
    warnings = discard_unsupported(asked, swap_limit=False, blkio_weight=False)
    assert [warning.split(" or the cgroup")[0] for warning in warnings] == [
        "Your kernel does not support swap limit capabilities",
        "Your kernel does not support Block I/O weight",
    ]
    assert (asked.memory_swap, asked.blkio_weight) == (-1, 0)


def test_names_lose_one_slash_and_have_at_least_two_characters() -> None:
    assert validate_name("/web-1") == "web-1"
    for bad in ("a", "", "/", "-ab", "a b", "ab\n", "//ab", "ä1"):
        with pytest.raises(InvalidParameter) as refused:
            validate_name(bad)
        assert str(refused.value) == f"Invalid container name ({bad}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"


def test_invented_names_are_valid_and_vary() -> None:
    names = {random_name() for _ in range(200)}
    assert len(names) > 150
    assert all(validate_name(name) == name for name in names)


# --- what the image gives ---------------------------------------------------------------------------------------


def merged(image: dict[str, Any], **fields: Any) -> ContainerConfig:
    mine = decode(msgspec.json.encode(fields), ContainerConfig)
    assert mine is not None
    merge_image(mine, msgspec.convert(image, ImageConfig))
    return mine


@pytest.mark.parametrize(
    ("mine", "argv"),
    [
        ({}, ["/entry", "image-arg"]),
        ({"Cmd": []}, ["/entry", "image-arg"]),
        ({"Cmd": ["mine"]}, ["/entry", "mine"]),
        ({"Cmd": "one string"}, ["/entry", "one string"]),
        ({"Cmd": ""}, ["/entry", ""]),
        ({"Entrypoint": ["/mine"]}, ["/mine"]),
        ({"Entrypoint": ["/mine"], "Cmd": ["x"]}, ["/mine", "x"]),
        ({"Entrypoint": []}, ["image-arg"]),
        ({"Entrypoint": [""], "Cmd": ["x"]}, ["x"]),
        ({"Entrypoint": "/str"}, ["/str"]),
    ],
)
def test_entrypoint_and_command_merge_as_dockers_do(mine: dict[str, Any], argv: list[str]) -> None:
    got = merged({"Entrypoint": ["/entry"], "Cmd": ["image-arg"]}, **mine)
    assert [*(got.entrypoint or []), *(got.cmd or [])] == argv


def test_the_containers_environment_comes_first_and_wins() -> None:
    got = merged({"Env": ["PATH=/bin", "A=image"]}, Env=["A=mine", "B"])
    assert got.env == ["A=mine", "B", "PATH=/bin"]


def test_labels_volumes_and_ports_are_united() -> None:
    image = {"Labels": {"a": "i", "b": "i"}, "Volumes": {"/v": {}}, "ExposedPorts": {"80/tcp": {}}}
    got = merged(image, Labels={"a": "m"}, Volumes={"/w": {}}, ExposedPorts={"81/tcp": {}})
    assert got.labels == {"a": "m", "b": "i"}
    assert set(got.volumes or {}) == {"/v", "/w"}
    assert set(got.exposed_ports or {}) == {"80/tcp", "81/tcp"}


def test_a_healthcheck_is_filled_field_by_field_even_when_it_is_disabled() -> None:
    image = {"Healthcheck": {"Test": ["CMD", "x"], "Interval": 7 * 10**9, "Retries": 2}}
    assert msgspec.to_builtins(merged(image, Healthcheck={"Test": ["NONE"]}).healthcheck) == {
        "Test": ["NONE"],
        "Interval": 7 * 10**9,
        "Retries": 2,
    }
    assert msgspec.to_builtins(merged(image).healthcheck) == image["Healthcheck"]


def test_fields_that_inspect_leaves_out_stay_out() -> None:
    shown = msgspec.to_builtins(merged({}, Cmd=["x"]))
    for absent in ("ExposedPorts", "Healthcheck", "StopSignal", "StopTimeout", "Shell", "MacAddress"):
        assert absent not in shown
    assert shown["Labels"] == {}
    assert shown["Env"] is None


# --- Docker's defaults ------------------------------------------------------------------------------------------


def filled(v2: bool, **fields: Any) -> dict[str, Any]:
    asked = host(**fields)
    asked.log_config = ContainerDefaults().log_config_of(asked)
    fill_host_defaults(asked, cgroup_v2=v2)
    shown: dict[str, Any] = msgspec.to_builtins(asked)
    return shown


def test_host_defaults_are_those_of_docker_28() -> None:
    shown = filled(True)
    assert shown["NetworkMode"] == "bridge"
    assert shown["RestartPolicy"] == {"Name": "no", "MaximumRetryCount": 0}
    assert shown["LogConfig"] == {"Type": "json-file", "Config": {}}
    assert shown["IpcMode"] == "private"
    assert shown["ShmSize"] == 67108864
    assert shown["PidsLimit"] is None
    assert "/proc/kcore" in shown["MaskedPaths"]
    assert "/proc/sys" in shown["ReadonlyPaths"]
    for absent in ("Tmpfs", "Sysctls", "StorageOpt", "Mounts", "Annotations", "Init"):
        assert absent not in shown


def test_the_cgroup_version_decides_two_defaults() -> None:
    assert (filled(True)["CgroupnsMode"], filled(True)["OomKillDisable"]) == ("private", None)
    assert (filled(False)["CgroupnsMode"], filled(False)["OomKillDisable"]) == ("host", False)


def test_swap_is_twice_the_memory_unless_it_was_said() -> None:
    assert filled(True, Memory=10 * MIB)["MemorySwap"] == 20 * MIB
    assert filled(True, Memory=10 * MIB, MemorySwap=-1)["MemorySwap"] == -1


def test_privileged_containers_have_no_masks() -> None:
    shown = filled(True, Privileged=True)
    assert shown["MaskedPaths"] is None
    assert shown["ReadonlyPaths"] is None
    assert shown["SecurityOpt"] == ["label=disable"]


@pytest.mark.parametrize(("asked", "kept"), [(None, None), (0, None), (-1, None), (5, 5)])
def test_no_pids_limit_is_null(asked: int | None, kept: int | None) -> None:
    assert filled(True, PidsLimit=asked)["PidsLimit"] == kept


def test_another_runtime_than_the_engines_is_refused_by_name() -> None:
    with pytest.raises(NotImplementedHere, match=r"HostConfig\.Runtime crun is not implemented here"):
        validate_create(ContainerConfig(cmd=["true"]), HostConfig(runtime="crun"), oci_runtime="runc")
    validate_create(ContainerConfig(cmd=["true"]), HostConfig(runtime="runc"), oci_runtime="crun")
    validate_create(ContainerConfig(cmd=["true"]), HostConfig(runtime="runc"), oci_runtime="runc")
    validate_create(ContainerConfig(cmd=["true"]), HostConfig(runtime="io.containerd.runc.v2"), oci_runtime="runc")
