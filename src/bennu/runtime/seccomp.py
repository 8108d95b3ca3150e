"""Decides the system call filter of a container, and says what ours consists of. Pure; pinned by `test_seccomp.py`.

What ours refuses is refused in two ways. A call that is known and not for containers is not permitted (EPERM). One
that neither this page nor `default_calls` names is newer than both and does not exist (ENOSYS), which is what makes a
C library take the older way instead of giving up.
"""

import errno
from collections.abc import Collection, Iterable, Mapping
from enum import StrEnum
from functools import lru_cache
from typing import Any, Final

from bennu.runtime.default_calls import (
    AF_ALG,
    AF_LAST,
    AF_VSOCK,
    ALWAYS,
    ARCHITECTURES,
    NAMESPACE_FLAGS,
    NEVER,
    ONLY_ON,
    OPENED_BY,
    PERSONALITIES,
    REFUSED_PERSONALITIES,
    SINCE,
)
from bennu.runtime.seccomp_profile import ALLOW, EQUAL, ERRNO, GREATER, LESS, MASKED, SeccompProfile, resolve_profile

# `clone` is let through by its flags. What `clone3` asks for lies in memory, where no filter sees it: it does not
# exist, and programs use `clone`.
BY_FLAGS: Final = frozenset({"clone", "clone3"})
NAMESPACES: Final = sum(NAMESPACE_FLAGS)
GATES: Final = frozenset(OPENED_BY)


class Seccomp(StrEnum):
    """The filters that have a name, as clients write it."""

    BUILTIN = "builtin"
    UNCONFINED = "unconfined"


def decide_filter(
    asked: Seccomp | SeccompProfile | None,
    *,
    privileged: bool,
    capabilities: Iterable[str],
    architecture: str,
    kernel: tuple[int, int],
) -> Mapping[str, Any] | None:
    """Decide `linux.seccomp` of the OCI configuration; not to be changed, it is shared. None: no filter.

    `asked` None: nobody said anything, and then only the privileged go without. `capabilities` are those of the
    bounding set; `architecture` is Go's name of it.
    """
    if asked is Seccomp.UNCONFINED or (asked is None and privileged):
        return None
    machine = "x86" if architecture == "386" else architecture
    if isinstance(asked, SeccompProfile):
        return resolve_profile(
            asked, architecture=machine, kernel=kernel, capabilities=frozenset(capabilities), native=native(machine)
        )
    return default_filter(frozenset(capabilities) & GATES, machine, kernel)


def native(architecture: str) -> tuple[str, ...]:
    """List the architectures that a kernel serves, in OCI's names, its own first; none if it is unknown."""
    return ARCHITECTURES.get(architecture, ())


@lru_cache(maxsize=64)
def default_filter(capabilities: frozenset[str], architecture: str, kernel: tuple[int, int]) -> Mapping[str, Any]:
    """Write our filter; `architecture` as rules name it. Cached by its arguments."""
    opened = _opened(capabilities, architecture, kernel)
    gated = _words(OPENED_BY).union(_words(SINCE))
    refused = _words(NEVER).union(gated) - opened - BY_FLAGS
    rules = [
        # First, for `socketcall` is among them: libseccomp takes `socket` for one of its kinds too, and refuses a
        # rule that contradicts the last one for it.
        _rule(ALLOW, sorted(opened)),
        *_socket_rules(),
        *_personality_rules(),
        *([] if "clone" in opened else _clone_rules(at=1 if architecture == "s390x" else 0)),
        _rule(ERRNO, sorted(refused), errnoRet=errno.EPERM),
    ]
    # An action that is the default one may not be a rule's: `clone3` is not among them.
    found: dict[str, Any] = {"defaultAction": ERRNO, "defaultErrnoRet": errno.ENOSYS, "syscalls": rules}
    if architectures := native(architecture):
        found["architectures"] = list(architectures)
    return found


def _opened(capabilities: Collection[str], architecture: str, kernel: tuple[int, int]) -> frozenset[str]:
    return frozenset().union(
        _words(ALWAYS),
        *(names.split() for since, names in SINCE.items() if kernel >= since),
        ONLY_ON.get(architecture, "").split(),
        *(OPENED_BY[capability].split() for capability in capabilities),
    )


def _socket_rules() -> list[dict[str, Any]]:
    """Allow each family but two. The kernel looks at half of the argument, so a set upper half is refused."""
    between = [value for value in range(AF_ALG, AF_LAST + 1) if value not in (AF_ALG, AF_VSOCK)]
    return [
        _rule(ALLOW, ["socket"], _compare(0, LESS, AF_ALG)),
        *(_rule(ALLOW, ["socket"], _compare(0, EQUAL, value)) for value in between),
        *(_rule(ERRNO, ["socket"], _compare(0, EQUAL, value), errnoRet=errno.EPERM) for value in (AF_ALG, AF_VSOCK)),
        _rule(ERRNO, ["socket"], _compare(0, GREATER, AF_LAST), errnoRet=errno.EAFNOSUPPORT),
    ]


def _personality_rules() -> list[dict[str, Any]]:
    return [
        *(_rule(ALLOW, ["personality"], _compare(0, EQUAL, value)) for value in PERSONALITIES),
        *(
            _rule(ERRNO, ["personality"], _compare(0, EQUAL, value), errnoRet=errno.EPERM)
            for value in REFUSED_PERSONALITIES
        ),
    ]


def _clone_rules(at: int) -> list[dict[str, Any]]:
    """Allow threads and processes, but none in a new namespace. The flags are the argument number `at`."""
    return [
        _rule(ALLOW, ["clone"], _compare(at, MASKED, NAMESPACES, 0)),
        *(_rule(ERRNO, ["clone"], _compare(at, MASKED, flag, flag), errnoRet=errno.EPERM) for flag in NAMESPACE_FLAGS),
    ]


def _rule(action: str, names: list[str], *compared: dict[str, Any], **more: int) -> dict[str, Any]:
    rule: dict[str, Any] = {"names": names, "action": action, **more}
    return {**rule, "args": list(compared)} if compared else rule


def _compare(index: int, operator: str, value: int, value_two: int = 0) -> dict[str, Any]:
    return {"index": index, "op": operator, "value": value, "valueTwo": value_two}


def _words(table: Mapping[Any, str]) -> frozenset[str]:
    return frozenset(" ".join(table.values()).split())
