"""The OCI configuration, decided from plain values."""

from typing import Any

import pytest

from bennu.errors import BennuError, InvalidParameter
from bennu.model import BindOptions, ContainerConfig, HostConfig, MountPoint, TmpfsOptions, Ulimit
from bennu.model import Mount as AskedMount
from bennu.runtime import HostFacts, SpecRequest, User, build_env, build_spec, container_group, parse_security_options
from bennu.runtime.capabilities import ALL, DEFAULT, decide_capabilities, names_of_mask, parse_capabilities
from bennu.runtime.container_defaults import ContainerDefaults
from bennu.runtime.devices import DeviceNode, device_rules, parse_device_rule
from bennu.runtime.mounts import merge_mounts, root_propagation, tmpfs_entry
from bennu.runtime.resources import UNLIMITED, build_resources, build_rlimits, lifted_limits
from bennu.runtime.seccomp import Seccomp
from bennu.runtime.seccomp_profile import SeccompAction, SeccompProfile
from bennu.runtime.spec import DEFAULT_PATH

HOST = HostFacts(capabilities=frozenset(ALL), init_binary="/usr/bin/tini-static")


def spec(
    config: ContainerConfig | None = None, host: HostConfig | None = None, *, facts: HostFacts = HOST, **more: Any
) -> dict[str, Any]:
    values: dict[str, Any] = {"host": facts, "args": ["/app", "-x"], "rootfs": "/r", "container_id": "c" * 64} | more
    return build_spec(SpecRequest(config=config or ContainerConfig(), host_config=host or HostConfig(), **values))


# --- environment --------------------------------------------------------------------------------------------------


def test_the_environment_is_in_dockerds_order() -> None:
    env = build_env(["A=1", "PATH=/mine", "B=2"], extra=["LINK=x"], hostname="h", tty=True, home="/root")
    assert env == ["PATH=/mine", "HOSTNAME=h", "TERM=xterm", "LINK=x", "A=1", "B=2", "HOME=/root"]


def test_a_name_alone_removes_a_variable() -> None:
    env = build_env(["HOSTNAME", "LINK", "E="], extra=["LINK=x"], hostname="h", tty=False, home="/")
    assert env == [f"PATH={DEFAULT_PATH}", "E=", "HOME=/"]


def test_a_home_of_ones_own_stays() -> None:
    assert build_env(["HOME=/h"], hostname="h", tty=False, home="/root")[-1] == "HOME=/h"
    assert "annotations" not in spec(ContainerConfig(env=["HOME=/h"]))


# --- capabilities -------------------------------------------------------------------------------------------------


def test_the_default_is_the_well_known_mask() -> None:
    assert names_of_mask(0xA80425FB) == set(DEFAULT)


@pytest.mark.parametrize(
    ("add", "drop", "expected"),
    [
        pytest.param([], [], set(DEFAULT), id="default"),
        pytest.param(["NET_ADMIN"], [], {*DEFAULT, "CAP_NET_ADMIN"}, id="add"),
        pytest.param([], ["CAP_CHOWN", "mknod"], set(DEFAULT) - {"CAP_CHOWN", "CAP_MKNOD"}, id="drop"),
        pytest.param(["ALL"], ["SYS_ADMIN"], set(ALL) - {"CAP_SYS_ADMIN"}, id="all-but-one"),
        pytest.param(["kill"], ["all"], {"CAP_KILL"}, id="only-one"),
        pytest.param(["CHOWN"], ["CHOWN"], set(DEFAULT), id="dropped-then-added"),
        pytest.param(["ALL"], ["ALL"], set(ALL), id="all-added-all-dropped"),
    ],
)
def test_adding_and_dropping(add: list[str], drop: list[str], expected: set[str]) -> None:
    given = parse_capabilities("CapAdd", add, ALL), parse_capabilities("CapDrop", drop, ALL)
    assert set(decide_capabilities(*given, privileged=False, available=ALL)) == expected


def test_unknown_and_unavailable_capabilities() -> None:
    with pytest.raises(InvalidParameter, match=r'^invalid CapAdd: unknown capability: "CAP_BOGUS"$'):
        parse_capabilities("CapAdd", ["bogus"], ALL)
    with pytest.raises(InvalidParameter, match=r'^invalid CapDrop: unknown capability: "CAP_BOGUS"$'):
        parse_capabilities("CapDrop", ["CAP_BOGUS"], ALL)
    with pytest.raises(InvalidParameter, match=r"not available in the current environment"):
        parse_capabilities("CapAdd", ["BPF"], DEFAULT)
    assert parse_capabilities("CapDrop", ["BPF"], DEFAULT) == ["CAP_BPF"]


def test_only_root_holds_capabilities_at_first() -> None:
    root = spec()["process"]["capabilities"]
    assert set(root["effective"]) == set(root["permitted"]) == set(root["bounding"]) == set(DEFAULT)
    other = spec(user=User(uid=7, gid=7, groups=(7,)))["process"]["capabilities"]
    assert (other["effective"], other["permitted"], set(other["bounding"])) == ([], [], set(DEFAULT))


# --- process ------------------------------------------------------------------------------------------------------


def test_an_init_stands_before_the_command_unless_another_is_there() -> None:
    own = spec(host=HostConfig(init=True))
    assert own["process"]["args"] == ["/sbin/docker-init", "--", "/app", "-x"]
    assert own["mounts"][-1] == {
        "destination": "/sbin/docker-init",
        "type": "bind",
        "source": "/usr/bin/tini-static",
        "options": ["rbind", "ro", "rprivate"],
    }
    joined = spec(host=HostConfig(init=True), pid_ns="/proc/1/ns/pid")
    assert joined["process"]["args"] == ["/app", "-x"]


def test_a_terminal_has_the_clients_size() -> None:
    process = spec(ContainerConfig(tty=True), HostConfig(console_size=[40, 120]))["process"]
    assert process["terminal"] is True
    assert process["consoleSize"] == {"height": 40, "width": 120}
    assert "consoleSize" not in spec(ContainerConfig(tty=True))["process"]


@pytest.mark.parametrize(
    ("asked", "can_raise", "ours", "given"),
    [(0, True, 0, 0), (-900, True, 0, -900), (-900, False, 0, 0), (-900, False, -100, -100), (300, False, 0, 300)],
)
def test_the_oom_score_is_not_lower_than_we_may(asked: int, can_raise: bool, ours: int, given: int) -> None:
    facts = HostFacts(can_raise_limits=can_raise, oom_score_adj=ours)
    assert spec(host=HostConfig(oom_score_adj=asked), facts=facts)["process"]["oomScoreAdj"] == given


# --- namespaces ---------------------------------------------------------------------------------------------------


def namespaces(**more: Any) -> dict[str, str | None]:
    return {space["type"]: space.get("path") for space in spec(**more)["linux"]["namespaces"]}


def test_namespaces_are_its_own_unless_told() -> None:
    own = {"mount": None, "network": None, "uts": None, "pid": None, "ipc": None, "cgroup": None}
    assert namespaces() == own
    assert namespaces(netns="", pid_ns="", ipc_ns="", uts_ns="") == {"mount": None, "cgroup": None}
    assert namespaces(netns="/run/n", pid_ns="/p")["network"] == "/run/n"


def test_the_control_group_namespace_depends_on_the_version() -> None:
    old = HostFacts(cgroup_v2=False)
    assert "cgroup" not in namespaces(facts=old)
    assert "cgroup" in build_and_name(old, "private")
    assert "cgroup" not in build_and_name(HOST, "host")


def build_and_name(facts: HostFacts, mode: str) -> set[str]:
    request = SpecRequest(
        config=ContainerConfig(),
        host_config=HostConfig(cgroupns_mode=mode),
        host=facts,
        args=["x"],
        rootfs="/",
        container_id="c",
    )
    return {space["type"] for space in build_spec(request)["linux"]["namespaces"]}


def test_the_hosts_name_is_not_set() -> None:
    assert "hostname" not in spec(uts_ns="")
    assert spec()["hostname"] == "c" * 12
    assert spec(ContainerConfig(hostname="nest", domainname="egypt"))["linux"]["sysctl"]["kernel.domainname"] == "egypt"


def test_low_ports_are_open_in_a_network_of_its_own() -> None:
    assert spec()["linux"]["sysctl"]["net.ipv4.ip_unprivileged_port_start"] == "0"
    assert "sysctl" not in spec(netns="")["linux"]
    assert "sysctl" not in spec(host=HostConfig(network_mode="container:x"), netns="/n")["linux"]
    assert spec(host=HostConfig(sysctls={"net.a": "1"}))["linux"]["sysctl"]["net.a"] == "1"


def test_the_control_group_is_below_its_parent() -> None:
    assert container_group("abc", HostConfig(), "/bennu") == "/bennu/abc"
    assert container_group("abc", HostConfig(cgroup_parent="/a/b/"), "/docker") == "/a/b/abc"
    usual = ContainerDefaults(cgroup_parent="/docker")
    assert spec(defaults=usual)["linux"]["cgroupsPath"] == f"/docker/{'c' * 64}"


# --- what the daemon's options say --------------------------------------------------------------------------------


def test_an_own_limit_wins_over_the_daemons_and_the_rest_is_added() -> None:
    usual = ContainerDefaults(ulimits=(Ulimit(name="nofile", soft=1, hard=2), Ulimit(name="core", soft=3, hard=3)))
    limits = spec(host=HostConfig(ulimits=[Ulimit(name="nofile", soft=7, hard=8)]), defaults=usual)["process"][
        "rlimits"
    ]
    assert {limit["type"]: (limit["soft"], limit["hard"]) for limit in limits} == {
        "RLIMIT_NOFILE": (7, 8),
        "RLIMIT_CORE": (3, 3),
    }


@pytest.mark.parametrize(("own", "usual", "wanted"), [(None, True, True), (False, True, False), (True, False, True)])
def test_an_init_is_there_unless_the_container_says_otherwise(own: bool | None, usual: bool, wanted: bool) -> None:
    made = spec(host=HostConfig(init=own), defaults=ContainerDefaults(init=usual))
    assert (made["process"]["args"][0] == "/sbin/docker-init") is wanted


def test_no_new_privileges_is_the_daemons_word_until_the_container_speaks() -> None:
    strict = ContainerDefaults(no_new_privileges=True)
    assert spec(defaults=strict)["process"]["noNewPrivileges"] is True
    own = HostConfig(security_opt=["no-new-privileges=false"])
    assert spec(host=own, defaults=strict)["process"]["noNewPrivileges"] is False


def test_the_daemons_seccomp_profile_is_for_who_names_none_and_is_not_privileged() -> None:
    usual = ContainerDefaults(seccomp=SeccompProfile(default_action=SeccompAction.LOG))
    assert spec(defaults=usual)["linux"]["seccomp"]["defaultAction"] == "SCMP_ACT_LOG"
    assert "seccomp" not in spec(defaults=ContainerDefaults(seccomp=Seccomp.UNCONFINED))["linux"]
    assert "seccomp" not in spec(host=HostConfig(privileged=True), defaults=usual)["linux"]
    asked = HostConfig(security_opt=["seccomp=builtin"])
    assert spec(host=asked, defaults=usual)["linux"]["seccomp"]["defaultAction"] == "SCMP_ACT_ERRNO"


@pytest.mark.parametrize(
    ("asked", "usual", "privileged", "v2", "mode"),
    [
        ("", "", False, False, "host"),
        ("", "", False, True, "private"),
        ("", "private", False, False, "private"),
        ("", "host", False, True, "host"),
        ("", "private", True, False, "host"),
        ("", "", True, True, "private"),
        ("private", "host", True, False, "private"),
        ("host", "private", False, True, "host"),
    ],
)
def test_the_control_group_namespace(asked: str, usual: str, privileged: bool, v2: bool, mode: str) -> None:
    host = HostConfig(cgroupns_mode=asked, privileged=privileged)
    assert ContainerDefaults(cgroupns_mode=usual).cgroupns_of(host, cgroup_v2=v2) == mode


# --- mounts -------------------------------------------------------------------------------------------------------


def mounted(**more: Any) -> dict[str, dict[str, Any]]:
    return {entry["destination"]: entry for entry in spec(**more)["mounts"]}


def test_default_mounts() -> None:
    found = mounted()
    assert list(found) == ["/proc", "/dev", "/dev/pts", "/sys", "/sys/fs/cgroup", "/dev/mqueue", "/dev/shm"]
    assert "ro" in found["/sys"]["options"]
    assert "size=67108864" in found["/dev/shm"]["options"]
    assert "rw" in mounted(host=HostConfig(privileged=True))["/sys"]["options"]


def test_shared_memory_follows_the_ipc_namespace() -> None:
    assert "/dev/shm" not in mounted(host=HostConfig(ipc_mode="none"))
    assert mounted(ipc_ns="")["/dev/shm"]["source"] == "/dev/shm"
    assert mounted(ipc_ns="")["/dev/mqueue"]["type"] == "mqueue", "the host's queues, also where the host mounts none"
    assert mounted(ipc_ns="/proc/9/ns/ipc", shm_path="/run/s")["/dev/shm"]["source"] == "/run/s"


def test_the_clients_mounts_come_parents_first_and_replace_defaults() -> None:
    points = [
        MountPoint(type="bind", source="/b", destination="/a/b/c", propagation="rprivate"),
        MountPoint(type="volume", source="/v", destination="/a", rw=False),
        MountPoint(type="bind", source="/m", destination="/dev/shm", propagation="rslave"),
    ]
    found = mounted(mounts=points)
    assert list(found)[-3:] == ["/a", "/dev/shm", "/a/b/c"]
    assert found["/a"]["options"] == ["rbind", "ro", "rprivate", "rro"]
    assert found["/dev/shm"]["source"] == "/m"
    assert spec(mounts=points)["linux"]["rootfsPropagation"] == "rslave"


OLD = HostFacts(kernel=(5, 11))


def bound(*, rw: bool = False, **options: bool) -> MountPoint:
    asked = AskedMount(type="bind", read_only=not rw, bind_options=BindOptions(**options))  # type: ignore[arg-type]
    return MountPoint(type="bind", source="/b", destination="/a", rw=rw, propagation="rprivate", spec=asked)


@pytest.mark.parametrize(
    ("point", "facts", "expected"),
    [
        (bound(), HostFacts(), ["rbind", "ro", "rprivate", "rro"]),
        (bound(read_only_force_recursive=True), HostFacts(), ["rbind", "ro", "rprivate", "rro"]),
        (bound(read_only_non_recursive=True), HostFacts(), ["rbind", "ro", "rprivate"]),
        (bound(non_recursive=True), HostFacts(), ["bind", "ro", "private"]),
        (bound(rw=True, non_recursive=True), HostFacts(), ["bind", "rw", "private"]),
        (bound(), OLD, ["rbind", "ro", "rprivate"]),
    ],
)
def test_how_far_a_bind_mount_and_its_being_read_only_go(
    point: MountPoint, facts: HostFacts, expected: list[str]
) -> None:
    assert mounted(mounts=[point], facts=facts)["/a"]["options"] == expected


@pytest.mark.parametrize(
    ("point", "facts", "message"),
    [
        (bound(rw=True, read_only_non_recursive=True), HostFacts(), "!ReadOnly && BindOptions.ReadOnlyNonRecursive"),
        (
            bound(rw=True, read_only_force_recursive=True),
            HostFacts(),
            "!ReadOnly && BindOptions.ReadOnlyForceRecursive",
        ),
        (
            bound(read_only_force_recursive=True, read_only_non_recursive=True),
            HostFacts(),
            "ReadOnlyNonRecursive && BindOptions.ReadOnlyForceRecursive",
        ),
        (bound(read_only_force_recursive=True), OLD, "recursive read-only mounts need Linux 5.12"),
    ],
)
def test_options_that_contradict_each_other_or_the_kernel(point: MountPoint, facts: HostFacts, message: str) -> None:
    with pytest.raises(BennuError, match=message):
        mounted(mounts=[point], facts=facts)


def test_the_engines_files_are_read_only_where_the_root_is() -> None:
    files = {"hosts_path": "/h", "hostname_path": "/n", "resolv_path": "/r"}
    own = [MountPoint(type="bind", source="/mine", destination="/etc/hosts", propagation="rprivate")]
    for read_only in (False, True):
        found = mounted(host=HostConfig(readonly_rootfs=read_only), mounts=own, **files)
        for path in ("/etc/hostname", "/etc/resolv.conf"):
            assert found[path]["options"][1] == ("ro" if read_only else "rw")
        assert found["/etc/hosts"]["options"][1] == "rw", "the client's own mount is as the client says"


def test_a_dev_of_the_client_replaces_what_is_below() -> None:
    merged = merge_mounts(
        [{"destination": path, "options": []} for path in ("/proc", "/dev", "/dev/pts", "/dev/shm")],
        [{"destination": "/dev", "options": ["shared"]}],
    )
    assert [entry["destination"] for entry in merged] == ["/proc", "/dev"]
    assert root_propagation(merged) == "shared"


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("", ["noexec", "nosuid", "nodev"]),
        ("exec,size=64m", ["nosuid", "nodev", "exec", "size=64m"]),
        ("size=1m,mode=700,size=2m,ro", ["noexec", "nosuid", "nodev", "mode=700", "size=2m", "ro"]),
    ],
)
def test_tmpfs_options(options: str, expected: list[str]) -> None:
    assert tmpfs_entry("/t", options)["options"] == expected


@pytest.mark.parametrize("option", ["bogus", "size", "size=", "colour=red"])
def test_bad_tmpfs_options(option: str) -> None:
    with pytest.raises(BennuError, match=f'^invalid tmpfs option "{option.partition("=")[0]}"$'):
        tmpfs_entry("/t", option)


def test_a_typed_tmpfs() -> None:
    asked = AskedMount(type="tmpfs", target="/t", tmpfs_options=TmpfsOptions(size_bytes=4096, mode=0o1770))
    found = mounted(host=HostConfig(mounts=[asked]))
    assert found["/t"]["options"] == ["noexec", "nosuid", "nodev", "size=4096", "mode=1770"]


# --- limits -------------------------------------------------------------------------------------------------------


def test_limits() -> None:
    host = HostConfig(
        memory=100,
        memory_swap=200,
        memory_reservation=50,
        nano_cpus=1_500_000_000,
        cpu_shares=512,
        cpuset_cpus="0",
        pids_limit=9,
        blkio_weight=300,
    )
    assert build_resources(host, HOST) == {
        "memory": {"limit": 100, "swap": 200, "reservation": 50},
        "cpu": {"shares": 512, "quota": 150_000, "period": 100_000, "cpus": "0"},
        "pids": {"limit": 9},
        "blockIO": {"weight": 300},
    }
    assert build_resources(HostConfig(pids_limit=-1), HOST) == {}


def test_a_host_without_a_feature_gets_no_such_limit() -> None:
    facts = HostFacts(swap_limit=False, blkio_weight=False, cgroup_v2=False)
    host = HostConfig(memory=100, memory_swap=200, blkio_weight=300, oom_kill_disable=True, memory_swappiness=0)
    assert build_resources(host, facts) == {"memory": {"limit": 100, "swappiness": 0, "disableOOMKiller": True}}


def test_lifted_limits() -> None:
    before = build_resources(HostConfig(memory=100, nano_cpus=10**9, pids_limit=5), HOST)
    assert lifted_limits(before, build_resources(HostConfig(memory=50), HOST)) == ["cpu", "pids"]


@pytest.mark.parametrize(
    ("highest", "soft", "hard", "given"),
    [
        pytest.param(-1, 10, 5000, (10, 5000), id="any"),
        pytest.param(1000, 10, 500, (10, 500), id="within"),
        pytest.param(1000, 10, 5000, (10, 1000), id="hard-lowered"),
        pytest.param(1000, 3000, 5000, (1000, 1000), id="both-lowered"),
        pytest.param(-1, -1, -1, (UNLIMITED, UNLIMITED), id="none"),
        pytest.param(1000, -1, -1, (1000, 1000), id="none-lowered"),
    ],
)
def test_process_limits(highest: int, soft: int, hard: int, given: tuple[int, int]) -> None:
    facts = HostFacts(hard_limits={"RLIMIT_NOFILE": highest})
    [limit] = build_rlimits([Ulimit(name="nofile", soft=soft, hard=hard)], facts)
    assert limit == {"type": "RLIMIT_NOFILE", "soft": given[0], "hard": given[1]}


# --- security -----------------------------------------------------------------------------------------------------


def test_security_options() -> None:
    found = parse_security_options(["no-new-privileges", "seccomp=unconfined", "label=disable", "apparmor=own"])
    assert (found.no_new_privileges, found.seccomp, found.apparmor) == (True, Seccomp.UNCONFINED, "own")
    assert parse_security_options(["no-new-privileges:false"]).no_new_privileges is False
    own = parse_security_options(['seccomp={"defaultAction":"SCMP_ACT_LOG"}']).seccomp
    assert own == SeccompProfile(default_action=SeccompAction.LOG)


@pytest.mark.parametrize(
    ("option", "told"),
    [
        ("bogus", 'invalid --security-opt 1: "bogus"'),
        ("a=b", 'invalid --security-opt 2: "a=b"'),
        ("no-new-privileges=perhaps", 'invalid --security-opt 2: "no-new-privileges=perhaps"'),
    ],
)
def test_bad_security_options(option: str, told: str) -> None:
    with pytest.raises(BennuError) as caught:
        parse_security_options([option])
    assert (str(caught.value), type(caught.value)) == (told, BennuError)


def test_paths_are_masked_unless_told() -> None:
    assert "/proc/kcore" in spec()["linux"]["maskedPaths"]
    assert spec(host=HostConfig(masked_paths=["/x"], readonly_paths=[]))["linux"]["maskedPaths"] == ["/x"]
    privileged = spec(host=HostConfig(privileged=True))["linux"]
    assert (privileged["maskedPaths"], privileged["readonlyPaths"]) == ([], [])
    assert privileged["resources"]["devices"] == [{"allow": True, "access": "rwm"}]


# --- devices ------------------------------------------------------------------------------------------------------


def test_devices_are_denied_first() -> None:
    node = DeviceNode("/dev/x", "c", 10, 20, 0o600, 0, 0, "rw")
    rules = device_rules([node], ["b *:3 r"], privileged=False)
    assert rules[0] == {"allow": False, "access": "rwm"}
    assert {"allow": True, "type": "c", "major": 10, "minor": 20, "access": "rw"} in rules
    assert rules[-1] == {"allow": True, "type": "b", "minor": 3, "access": "r"}


@pytest.mark.parametrize("rule", ["", "x 1:2 r", "c 1:2 q", "c 1 r", "c 1:2  rwm", "c 1:2 rwmr"])
def test_malformed_device_rules(rule: str) -> None:
    with pytest.raises(BennuError, match=r"^invalid device cgroup rule format: "):
        parse_device_rule(rule)
