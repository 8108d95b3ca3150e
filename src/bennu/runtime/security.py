"""`HostConfig.SecurityOpt`, parsed. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from bennu.errors import BennuError
from bennu.go.bool import parse_bool
from bennu.runtime.seccomp import Seccomp
from bennu.runtime.seccomp_profile import SeccompProfile


@dataclass(frozen=True, slots=True)
class Security:
    """`seccomp` None: the client said nothing of it."""

    no_new_privileges: bool = False
    apparmor: str = ""
    seccomp: Seccomp | SeccompProfile | None = None
    writable_cgroups: bool = False


def parse_security_options(options: Iterable[str]) -> Security:
    """Raises: BennuError (a 500, as dockerd) in dockerd's words; InvalidParameter for a broken seccomp profile."""
    found: dict[str, Any] = {}
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
    if option == "no-new-privileges":
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
    """Clients read the file and send what is in it. An empty value asks for nothing."""
    if not value:
        return None
    return Seccomp(value) if value in tuple(Seccomp) else SeccompProfile.parse(value)
