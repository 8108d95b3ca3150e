"""Reads `HostConfig.SecurityOpt` (moby `daemon/daemon_unix.go`). Pure."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from bennu.errors import BennuError
from bennu.go.bool import parse_bool
from bennu.runtime.seccomp import Seccomp
from bennu.runtime.seccomp_profile import SeccompProfile


@dataclass(frozen=True, slots=True)
class Security:
    """What the options say; `seccomp` None: nothing."""

    no_new_privileges: bool = False
    apparmor: str = ""
    seccomp: Seccomp | SeccompProfile | None = None
    writable_cgroups: bool = False


def parse_security_options(options: Iterable[str], *, no_new_privileges: bool = False) -> Security:
    """Read the options; `no_new_privileges`: of those that say nothing of it.

    Raises: BennuError (a 500, as dockerd); InvalidParameter for a bad seccomp profile."""
    found: dict[str, Any] = {"no_new_privileges": no_new_privileges}
    for option in options:
        key, value = _split(option)
        if key == "no-new-privileges":
            found["no_new_privileges"] = _boolean(option, value)
        elif key == "writable-cgroups":
            found["writable_cgroups"] = _boolean(option, value)
        elif key == "apparmor":
            found["apparmor"] = value
        elif key == "seccomp":
            found["seccomp"] = _seccomp(value)
        elif key != "label":
            raise BennuError(f'invalid --security-opt 2: "{option}"')
    return Security(**found)


def _split(option: str) -> tuple[str, str]:
    if option in ("no-new-privileges", "writable-cgroups"):
        return option, "true"
    if option == "disable":
        return "label", option
    for separator in "=:":
        if separator in option:
            key, _, value = option.partition(separator)
            return key, value
    raise BennuError(f'invalid --security-opt 1: "{option}"')


def _boolean(option: str, value: str) -> bool:
    try:
        return parse_bool(value)
    except ValueError:
        raise BennuError(f'invalid --security-opt 2: "{option}"') from None


def _seccomp(value: str) -> Seccomp | SeccompProfile | None:
    """Read a filter's name or a profile, whose file the client has read. An empty value asks for nothing."""
    if not value:
        return None
    return Seccomp(value) if value in tuple(Seccomp) else SeccompProfile.parse(value)
