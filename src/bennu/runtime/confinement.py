"""How a default container is confined, for a configuration that somebody else writes: a step of a build. Pure."""

from typing import Any

from bennu.model import ContainerConfig, HostConfig
from bennu.runtime.hostfacts import HostFacts
from bennu.runtime.spec import SpecRequest, build_spec


def default_confinement(host: HostFacts) -> dict[str, Any]:
    """In the terms of an OCI configuration, taken from that of a container whose client asked for nothing."""
    asked_nothing = SpecRequest(
        container_id="", config=ContainerConfig(), host_config=HostConfig(), host=host, args=(), rootfs=""
    )
    spec = build_spec(asked_nothing)
    process, linux = spec["process"], spec["linux"]
    return {
        "capabilities": process["capabilities"]["bounding"],
        "rlimits": process.get("rlimits", []),
        "maskedPaths": linux["maskedPaths"],
        "readonlyPaths": linux["readonlyPaths"],
        "seccomp": linux.get("seccomp"),
    }
