"""The system call filter: from the conditional form that distributions ship to the plain one OCI runtimes take. Pure.

A rule of the conditional form applies if the container has the capabilities, and the host the architecture and the
kernel, that its `includes` name, and none of those its `excludes` name.
"""

from collections.abc import Collection, Mapping
from typing import Any, Final

# The architecture's name in rules (Go's) → its OCI name, for profiles that list none.
_ARCHITECTURES: Final = {
    "amd64": "SCMP_ARCH_X86_64",
    "arm64": "SCMP_ARCH_AARCH64",
    "arm": "SCMP_ARCH_ARM",
    "386": "SCMP_ARCH_X86",
    "ppc64le": "SCMP_ARCH_PPC64LE",
    "riscv64": "SCMP_ARCH_RISCV64",
    "s390x": "SCMP_ARCH_S390X",
}
_RULE_FIELDS: Final = ("names", "action", "errnoRet")


def resolve_profile(
    profile: Mapping[str, Any], *, architecture: str, kernel: tuple[int, int], capabilities: Collection[str]
) -> dict[str, Any]:
    """The profile for this host and container. `architecture` is Go's name of it."""
    rules = [
        _plain_rule(rule)
        for rule in profile.get("syscalls") or ()
        if _applies(rule, architecture=architecture, kernel=kernel, capabilities=capabilities)
    ]
    resolved: dict[str, Any] = {"defaultAction": profile.get("defaultAction", "SCMP_ACT_ERRNO"), "syscalls": rules}
    for name in ("defaultErrnoRet", "flags", "listenerPath", "listenerMetadata"):
        if profile.get(name) is not None:
            resolved[name] = profile[name]
    if architectures := _architectures(profile, architecture):
        resolved["architectures"] = architectures
    return resolved


def _architectures(profile: Mapping[str, Any], architecture: str) -> list[str]:
    if profile.get("architectures"):
        return list(profile["architectures"])
    own = _ARCHITECTURES.get(architecture)
    for entry in profile.get("archMap") or ():
        if entry.get("architecture") == own:
            return [own, *(entry.get("subArchitectures") or ())]
    return [own] if own else []


def _plain_rule(rule: Mapping[str, Any]) -> dict[str, Any]:
    plain = {name: rule[name] for name in _RULE_FIELDS if rule.get(name) is not None}
    if "names" not in plain and rule.get("name"):
        plain["names"] = [rule["name"]]
    if rule.get("args"):
        plain["args"] = [dict(argument) for argument in rule["args"]]
    return plain


def _applies(
    rule: Mapping[str, Any], *, architecture: str, kernel: tuple[int, int], capabilities: Collection[str]
) -> bool:
    wanted, refused = rule.get("includes") or {}, rule.get("excludes") or {}
    if wanted.get("arches") and architecture not in wanted["arches"]:
        return False
    if not all(name in capabilities for name in wanted.get("caps") or ()):
        return False
    if wanted.get("minKernel") and kernel < _version(wanted["minKernel"]):
        return False
    if architecture in (refused.get("arches") or ()):
        return False
    if any(name in capabilities for name in refused.get("caps") or ()):
        return False
    return not (refused.get("minKernel") and kernel >= _version(refused["minKernel"]))


def _version(text: str) -> tuple[int, int]:
    major, _, minor = text.partition(".")
    return int(major), int(minor.partition(".")[0] or 0)
