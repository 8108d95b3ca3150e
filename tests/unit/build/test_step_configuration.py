"""The OCI configuration of a step: a default container's with BuildKit's differences, as dockerd 28.5 shows them."""

from typing import Any

from bennu.build.graph import Exec, MountKind, Scratch, StepLimit, StepMount
from bennu.build.steps.configuration import (
    StepContainer,
    mount_of,
    tmpfs_of,
    write_configuration,
    write_environment,
    write_hosts,
)
from bennu.model import HostConfig
from bennu.runtime.capabilities import names_of_mask
from bennu.runtime.container_defaults import ContainerDefaults
from bennu.runtime.hostfacts import HostFacts
from bennu.runtime.users import User


def container(network: str = "given", secrets: tuple[str, ...] = (), **step: Any) -> StepContainer:
    words: dict[str, Any] = {"argv": ("/bin/sh", "-c", "true"), "env": (), "cwd": "/", "user": "", **step}
    return StepContainer(
        step=Exec(base=Scratch(), **words),
        user=User(home="/root"),
        secrets=secrets,
        mounts=[mount_of("/mounts/0", "/a/b", ["ro"]), mount_of("/mounts/1", "/a", ["ro"])],
        group="/builds/one",
        network=network,
        cgroupns="private",
        limits=HostConfig(memory=1 << 20),
        host=HostFacts(capabilities=names_of_mask((1 << 41) - 1), hard_limits={"RLIMIT_NOFILE": 100}),
        defaults=ContainerDefaults(),
    )


def test_a_step_is_confined_like_a_default_container() -> None:
    spec = write_configuration(container())
    assert len(spec["process"]["capabilities"]["bounding"]) == 14
    assert spec["linux"]["seccomp"]["defaultAction"] == "SCMP_ACT_ERRNO"
    assert "/proc/kcore" in spec["linux"]["maskedPaths"] and "/proc/sys" in spec["linux"]["readonlyPaths"]
    cgroups = next(mount for mount in spec["mounts"] if mount["destination"] == "/sys/fs/cgroup")
    assert "ro" in cgroups["options"]
    assert spec["process"]["terminal"] is False
    assert spec["hostname"] == "buildkitsandbox"
    assert spec["linux"]["cgroupsPath"] == "/builds/one"
    assert spec["linux"]["resources"]["memory"]["limit"] == 1 << 20


def test_limits_are_lowered_to_what_we_may_give() -> None:
    spec = write_configuration(container(limits=(StepLimit("nofile", 1000, 2000),), shm_size=1 << 16))
    assert spec["process"]["rlimits"] == [{"type": "RLIMIT_NOFILE", "soft": 100, "hard": 100}]
    shm = next(mount for mount in spec["mounts"] if mount["destination"] == "/dev/shm")
    assert "size=65536" in shm["options"]


def test_a_step_without_a_network_gets_one_with_nothing_in_it() -> None:
    own, given = (
        write_configuration(container(network=network))["linux"]["namespaces"] for network in ("own", "given")
    )
    assert {"type": "network"} in own
    assert not [one for one in given if one["type"] == "network"], "it has that of its world"


def test_mounts_come_with_those_around_them_first_and_after_the_names_of_hosts() -> None:
    targets = [mount["destination"] for mount in write_configuration(container())["mounts"]]
    assert targets[-4:] == ["/etc/resolv.conf", "/etc/hosts", "/a", "/a/b"]


def test_the_environment_is_the_steps_own_with_path_and_home() -> None:
    agent = StepMount(kind=MountKind.SSH, target="")
    asked = container(secrets=("TOKEN=t",), env=("A=b",), proxy_env=("HTTP_PROXY=p",), mounts=(agent,))
    assert write_environment(asked) == [
        "A=b",
        "HTTP_PROXY=p",
        "SSH_AUTH_SOCK=/run/buildkit/ssh_agent.0",
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "TOKEN=t",
        "HOME=/root",
    ]
    assert write_environment(container(env=("PATH=/p", "HOME=/h"))) == ["PATH=/p", "HOME=/h"]


def test_hosts_are_those_of_the_step() -> None:
    step = Exec(base=Scratch(), argv=(), env=(), cwd="/", user="", hosts=(("db", "10.0.0.2"),), hostname="here")
    assert write_hosts(step) == ("127.0.0.1\tlocalhost here\n::1\tlocalhost ip6-localhost ip6-loopback\n10.0.0.2\tdb\n")


def test_a_tmpfs_has_the_size_that_was_asked_for() -> None:
    mount = StepMount(kind=MountKind.TMPFS, target="/t", size=4096, read_only=True)
    assert tmpfs_of(mount) == {
        "destination": "/t",
        "type": "tmpfs",
        "source": "tmpfs",
        "options": ["nosuid", "ro", "size=4096"],
    }
