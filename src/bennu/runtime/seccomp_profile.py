"""Reads a seccomp filter of the client's own, in Docker's conditional form or in that of OCI runtimes. Pure.

A rule of the conditional form applies if the container has the capabilities, and the host the architecture and the
kernel, that its `includes` name, and none of those its `excludes` name.
"""

import errno
from collections.abc import Collection, Sequence
from enum import StrEnum
from typing import Annotated, Any, Final, Self

import msgspec
from msgspec import Meta, Struct

from bennu.errors import InvalidParameter

UINT64_MAX: Final = (1 << 64) - 1
ERRNO_MAX: Final = 0xFFFF


class SeccompAction(StrEnum):
    """What the kernel does with a call."""

    KILL = "SCMP_ACT_KILL"
    KILL_PROCESS = "SCMP_ACT_KILL_PROCESS"
    KILL_THREAD = "SCMP_ACT_KILL_THREAD"
    TRAP = "SCMP_ACT_TRAP"
    ERRNO = "SCMP_ACT_ERRNO"
    TRACE = "SCMP_ACT_TRACE"
    ALLOW = "SCMP_ACT_ALLOW"
    LOG = "SCMP_ACT_LOG"
    NOTIFY = "SCMP_ACT_NOTIFY"


class Operator(StrEnum):
    """How an argument is compared."""

    NOT_EQUAL = "SCMP_CMP_NE"
    LESS = "SCMP_CMP_LT"
    LESS_OR_EQUAL = "SCMP_CMP_LE"
    EQUAL = "SCMP_CMP_EQ"
    GREATER_OR_EQUAL = "SCMP_CMP_GE"
    GREATER = "SCMP_CMP_GT"
    MASKED_EQUAL = "SCMP_CMP_MASKED_EQ"


ALLOW: Final = SeccompAction.ALLOW.value
ERRNO: Final = SeccompAction.ERRNO.value
EQUAL: Final = Operator.EQUAL.value
GREATER: Final = Operator.GREATER.value
LESS: Final = Operator.LESS.value
MASKED: Final = Operator.MASKED_EQUAL.value

Errno = Annotated[int, Meta(ge=0, le=ERRNO_MAX)]


class ArgumentComparison(Struct, rename="camel"):
    """A comparison of one argument; `value_two` is what a masked argument must equal, else it is unused."""

    index: Annotated[int, Meta(ge=0, le=5)]
    value: int
    op: Operator
    value_two: int = 0

    def __post_init__(self) -> None:
        if not (0 <= self.value <= UINT64_MAX and 0 <= self.value_two <= UINT64_MAX):
            raise ValueError("the value of an argument has 64 bits")


class Condition(Struct, rename="camel"):
    """The capabilities, architectures and kernel that a rule asks for."""

    caps: list[str] | None = None
    arches: list[str] | None = None
    min_kernel: Annotated[str, Meta(pattern=r"\A([0-9]{1,3}\.[0-9]{1,3})?\Z")] | None = None

    @property
    def kernel(self) -> tuple[int, int] | None:
        if not self.min_kernel:
            return None
        major, _, minor = self.min_kernel.partition(".")
        return int(major), int(minor)


class SeccompRule(Struct, rename="camel"):
    """One rule; `name` is how older profiles write `names`."""

    action: SeccompAction
    names: list[str] | None = None
    name: str = ""
    errno_ret: Errno | None = None
    args: list[ArgumentComparison] | None = None
    includes: Condition | None = None
    excludes: Condition | None = None

    def __post_init__(self) -> None:
        if self.name and self.names:
            raise ValueError(
                "both 'name' and 'names' are specified in the seccomp profile, use either 'name' or 'names'"
            )

    def plain(self) -> dict[str, Any]:
        """Write the rule in OCI's form, without its conditions."""
        plain: dict[str, Any] = {"names": [self.name] if self.name else self.names or [], "action": self.action.value}
        if self.errno_ret is not None:
            plain["errnoRet"] = self.errno_ret
        if self.args:
            plain["args"] = msgspec.to_builtins(self.args)
        return plain


class Architecture(Struct, rename="camel"):
    """An architecture, and those of other word sizes that its kernel serves as well."""

    architecture: str
    sub_architectures: list[str] | None = None


class SeccompProfile(Struct, rename="camel"):
    """A whole profile. Unknown fields are passed over, as dockerd does (moby `profiles/seccomp/seccomp.go`)."""

    default_action: SeccompAction
    default_errno_ret: Errno | None = None
    architectures: list[str] | None = None
    arch_map: list[Architecture] | None = None
    syscalls: list[SeccompRule] | None = None
    flags: list[str] | None = None
    listener_path: str | None = None
    listener_metadata: str | None = None

    def __post_init__(self) -> None:
        if self.architectures and self.arch_map:
            raise ValueError(
                "both 'architectures' and 'archMap' are specified in the seccomp profile, "
                "use either 'architectures' or 'archMap'"
            )

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a profile. Raises: InvalidParameter for what is broken, and when no default action is given.

        A missing default is no "no filter": that would open a container for a slip of the pen.
        """
        try:
            return msgspec.json.decode(text, type=cls)
        except (msgspec.DecodeError, ValueError, RecursionError) as error:
            raise InvalidParameter(f"Decoding seccomp profile failed: {error}") from None


def resolve_profile(
    profile: SeccompProfile,
    *,
    architecture: str,
    kernel: tuple[int, int],
    capabilities: Collection[str],
    native: Sequence[str],
) -> dict[str, Any]:
    """Write the profile for this host and container in OCI's form.

    `native`: the architectures that the kernel serves, its own first.
    """
    applying = [rule for rule in profile.syscalls or () if _applies(rule, architecture, kernel, capabilities)]
    resolved: dict[str, Any] = {
        "defaultAction": profile.default_action.value,
        "syscalls": [rule.plain() for rule in applying if not _repeats_default(rule, profile)],
        "defaultErrnoRet": profile.default_errno_ret,
        "architectures": profile.architectures or _mapped(profile.arch_map or (), native[:1]),
        "flags": profile.flags,
        "listenerPath": profile.listener_path,
        "listenerMetadata": profile.listener_metadata,
    }
    return {name: value for name, value in resolved.items() if value is not None}


def _mapped(entries: Sequence[Architecture], own: Sequence[str]) -> list[str]:
    for entry in entries:
        if entry.architecture in own:
            return [entry.architecture, *(entry.sub_architectures or ())]
    return list(own)


def _repeats_default(rule: SeccompRule, profile: SeccompProfile) -> bool:
    """Tell whether a rule changes nothing; libseccomp refuses such a rule."""
    if rule.action is not profile.default_action:
        return False
    ours, theirs = (errno.EPERM if code is None else code for code in (rule.errno_ret, profile.default_errno_ret))
    return ours == theirs or rule.action not in (SeccompAction.ERRNO, SeccompAction.TRACE)


def _applies(rule: SeccompRule, architecture: str, kernel: tuple[int, int], capabilities: Collection[str]) -> bool:
    wanted, refused = rule.includes or Condition(), rule.excludes or Condition()
    if wanted.arches and architecture not in wanted.arches:
        return False
    if not all(name in capabilities for name in wanted.caps or ()):
        return False
    if wanted.kernel and kernel < wanted.kernel:
        return False
    if architecture in (refused.arches or ()):
        return False
    if any(name in capabilities for name in refused.caps or ()):
        return False
    return not (refused.kernel and kernel >= refused.kernel)
