"""Writes the OCI configuration of a step: a default container's, with BuildKit's differences. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from bennu.build.graph import Exec, MountKind, StepMount
from bennu.model import ContainerConfig, HostConfig, Ulimit
from bennu.runtime.container_defaults import ContainerDefaults
from bennu.runtime.hostfacts import HostFacts
from bennu.runtime.spec import DEFAULT_PATH, SpecRequest, build_spec, has_variable
from bennu.runtime.users import User

HOSTNAME: Final = "buildkitsandbox"
HARMLESS: Final = ("nosuid", "nodev", "noexec")
AGENT: Final = "/run/buildkit/ssh_agent.{}"


@dataclass(frozen=True, slots=True, kw_only=True)
class StepContainer:
    """What a step's container is made of. Paths are those of its world."""

    step: Exec
    user: User
    secrets: Sequence[str]  # NAME=value
    mounts: Sequence[dict[str, Any]]  # of its `--mount`s
    group: str  # its control group
    network: str  # "own": one without anything; else the one that its runtime is in
    cgroupns: str
    limits: HostConfig
    host: HostFacts
    defaults: ContainerDefaults


def write_configuration(container: StepContainer) -> dict[str, Any]:
    """Write the whole `config.json`. Raises: RuntimeFailure for what cannot be."""
    step = container.step
    limits = msgspec.structs.replace(
        container.limits,
        shm_size=step.shm_size or container.defaults.shm_size,
        ulimits=[Ulimit(name=limit.name, soft=limit.soft, hard=limit.hard) for limit in step.limits],
        cgroupns_mode=container.cgroupns,
    )
    request = SpecRequest(
        container_id="",
        config=ContainerConfig(working_dir=step.cwd),
        host_config=limits,
        host=container.host,
        args=step.argv,
        rootfs="/rootfs",
        user=container.user,
        netns=None if container.network == "own" else "",
        hostname=step.hostname or HOSTNAME,
        cgroup_path=container.group,
        defaults=container.defaults,
    )
    spec = build_spec(request)
    spec["process"]["env"] = write_environment(container)
    spec["linux"].pop("sysctl", None)  # those of a container's network; BuildKit sets none
    spec.pop("annotations", None)
    files = (("/bundle/resolv.conf", "/etc/resolv.conf"), ("/bundle/hosts", "/etc/hosts"))
    spec["mounts"] += [mount_of(source, target, ("ro", *HARMLESS)) for source, target in files]
    spec["mounts"] += sorted(container.mounts, key=lambda mount: str(mount["destination"]))  # parents first
    return spec


def mount_of(source: str, target: str, options: Sequence[str]) -> dict[str, Any]:
    return {"destination": target, "type": "bind", "source": source, "options": ["rbind", "rprivate", *options]}


def tmpfs_of(mount: StepMount) -> dict[str, Any]:
    options = ["nosuid", *(["ro"] if mount.read_only else []), *([f"size={mount.size}"] if mount.size else [])]
    return {"destination": mount.target, "type": "tmpfs", "source": "tmpfs", "options": options}


def write_environment(container: StepContainer) -> list[str]:
    """Join the step's variables, proxies, the usual PATH, secrets and HOME, in BuildKit's order."""
    step = container.step
    env = [*step.env, *step.proxy_env]
    agents = [mount for mount in step.mounts if mount.kind is MountKind.SSH]
    if agents and not has_variable(env, "SSH_AUTH_SOCK"):
        env.append(f"SSH_AUTH_SOCK={agents[0].target or AGENT.format(0)}")
    if not has_variable(env, "PATH"):
        env.append(f"PATH={DEFAULT_PATH}")
    env += container.secrets
    if not has_variable(env, "HOME"):
        env.append(f"HOME={container.user.home}")
    return env


def write_hosts(step: Exec) -> str:
    own = f"127.0.0.1\tlocalhost {step.hostname or HOSTNAME}\n::1\tlocalhost ip6-localhost ip6-loopback\n"
    return own + "".join(f"{address}\t{name}\n" for name, address in step.hosts)
