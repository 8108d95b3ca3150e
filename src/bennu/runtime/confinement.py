"""How a default container is confined, for a configuration that somebody else writes: a step of a build. Pure."""

from typing import Any

from bennu.runtime.capabilities import decide_capabilities
from bennu.runtime.hostfacts import HostFacts
from bennu.runtime.resources import build_rlimits
from bennu.runtime.seccomp import resolve_profile
from bennu.runtime.spec import MASKED_PATHS, READONLY_PATHS


def default_confinement(host: HostFacts) -> dict[str, Any]:
    """In the terms of an OCI configuration."""
    capabilities = decide_capabilities((), (), privileged=False, available=host.capabilities)
    profile = host.seccomp_profile
    return {
        "capabilities": capabilities,
        "rlimits": build_rlimits((), host),
        "maskedPaths": list(MASKED_PATHS),
        "readonlyPaths": list(READONLY_PATHS),
        "seccomp": profile
        and resolve_profile(profile, architecture=host.architecture, kernel=host.kernel, capabilities=capabilities),
    }
