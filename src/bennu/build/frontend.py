"""The options of BuildKit's Dockerfile frontend, read as a `SolveRequest`. Pure.

(BuildKit `frontend/dockerui/config.go`, `attr.go`.)
"""

import json
import re
from collections.abc import Mapping
from typing import Final

from bennu.build.graph import StepLimit
from bennu.build.plan.requests import REQUESTS
from bennu.build.request import CONTEXT, Solved, SolveRequest
from bennu.errors import InvalidParameter, NotImplementedHere
from bennu.model import HostConfig

FRONTENDS: Final = ("dockerfile.v0", "gateway.v0")
# Ours answers for it, whatever version is named: it has today's syntax.
SYNTAX: Final = re.compile(
    r"(docker\.io/)?docker/dockerfile(-upstream)?(:1[0-9.]*|:latest|:[0-9.]*-?labs)?(@sha256:.*)?"
)
LIMITS: Final = {
    "memory": "memory",
    "memswap": "memory_swap",
    "cpushares": "cpu_shares",
    "cpuperiod": "cpu_period",
    "cpuquota": "cpu_quota",
    "cpusetcpus": "cpuset_cpus",
    "cpusetmems": "cpuset_mems",
}
NUMBERS: Final = ("memory", "memswap", "cpushares", "cpuperiod", "cpuquota")
REQUEST: Final = "requestid"  # what is asked instead of a build
NETWORKS: Final = {"": "default", "sandbox": "default", "default": "default", "none": "none", "host": "host"}


def check_frontend(frontend: str, options: Mapping[str, str]) -> None:
    """Refuse frontends that are not ours. Raises: NotImplementedHere."""
    if frontend not in FRONTENDS:
        raise NotImplementedHere(f"the frontend {frontend or 'of a client itself (LLB)'} is not implemented")
    source = options.get("source", "")
    if frontend == "gateway.v0" and not SYNTAX.fullmatch(source):
        raise NotImplementedHere(f"the frontend {source} (# syntax=) is not implemented: only docker/dockerfile is")
    asked = options.get(REQUEST, "")
    if asked and asked not in REQUESTS:
        raise NotImplementedHere(f"{asked.removeprefix('frontend.')} of a Dockerfile is not implemented")


def read_options(options: Mapping[str, str], solved: Mapping[str, Solved]) -> SolveRequest:
    """Read the options of one build. Raises: InvalidParameter; NotImplementedHere for what would be ignored."""
    platforms = [name for name in options.get("platform", "").split(",") if name]
    if len(platforms) > 1:
        raise NotImplementedHere("building for several platforms at once is not implemented")
    for name in options:
        if name.startswith("attest:"):
            raise NotImplementedHere(f"attestations ({name.removeprefix('attest:')}) are not implemented")
    no_cache = options.get("no-cache")
    context_url = options.get(options.get("contextkey", CONTEXT), "")
    return SolveRequest(
        filename=options.get("filename") or "Dockerfile",
        target=options.get("target", ""),
        arguments=_after(options, "build-arg:"),
        labels=_after(options, "label:"),
        platform=platforms[0] if platforms else "",
        no_cache=no_cache == "",
        no_cache_filter=tuple(name for name in (no_cache or "").split(",") if name),
        pull=options.get("image-resolve-mode") == "pull",
        network=_network(options.get("force-network-mode", "")),
        extra_hosts=_hosts(options.get("add-hosts", "")),
        shm_size=_number("shm-size", options.get("shm-size", "")),
        ulimits=_ulimits(options.get("ulimit", "")),
        cgroup_parent=options.get("cgroup-parent", ""),
        limits=_limits(options),
        cache_from=_cache_from(options),
        contexts=_after(options, "context:"),
        solved=solved,
        context_url=context_url,
        hostname=options.get("build-arg:BUILDKIT_SANDBOX_HOSTNAME") or options.get("hostname", ""),
    )


def local_sessions(options: Mapping[str, str]) -> dict[str, str]:
    """Answer which session has which folder, where it is not the build's own."""
    return _after(options, "local-sessionid:")


def _after(options: Mapping[str, str], prefix: str) -> dict[str, str]:
    return {name.removeprefix(prefix): value for name, value in options.items() if name.startswith(prefix)}


def _network(mode: str) -> str:
    if mode not in NETWORKS:
        raise InvalidParameter(f"invalid netmode {mode}")
    return NETWORKS[mode]


def _hosts(text: str) -> tuple[str, ...]:
    """Read `name=address,…`, with quotes as in CSV. Raises: InvalidParameter."""
    hosts = []
    for entry in filter(None, (part.strip().strip('"') for part in text.split(","))):
        name, found, address = entry.partition("=")
        if not found or not name or not address:
            raise InvalidParameter(f"invalid key-value pair: {entry}")
        hosts.append(f"{name}:{address}")
    return tuple(hosts)


def _number(name: str, text: str) -> int:
    if not text:
        return 0
    if not re.fullmatch(r"-?[0-9]{1,18}", text):
        raise InvalidParameter(f"failed to parse {name}: {text}")
    return int(text)


def _ulimits(text: str) -> tuple[StepLimit, ...]:
    """Read `name=soft:hard,…`. Raises: InvalidParameter."""
    limits = []
    for entry in filter(None, text.split(",")):
        match = re.fullmatch(r"([a-z]+)=(-?[0-9]{1,18})(?::(-?[0-9]{1,18}))?", entry.strip())
        if not match:
            raise InvalidParameter(f"failed to parse ulimit: {entry}")
        soft = int(match[2])
        limits.append(StepLimit(match[1], soft, int(match[3]) if match[3] else soft))
    return tuple(limits)


def _limits(options: Mapping[str, str]) -> HostConfig:
    config = HostConfig()
    for name, attribute in LIMITS.items():
        value = options.get(name, "")
        if value:
            setattr(config, attribute, _number(name, value) if name in NUMBERS else value)
    return config


def _cache_from(options: Mapping[str, str]) -> tuple[str, ...]:
    found = [name for name in options.get("cache-from", "").split(",") if name]
    try:
        entries = json.loads(options.get("cache-imports") or "[]") or []
        for entry in entries:
            attributes = {key.lower(): value for key, value in (entry.get("Attrs") or entry.get("attrs") or {}).items()}
            found += [str(attributes["ref"])] if "ref" in attributes else []
    except (ValueError, AttributeError, TypeError):
        raise InvalidParameter("failed to unmarshal cache-imports") from None
    return tuple(found)
