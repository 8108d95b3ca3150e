"""`HostConfig.SecurityOpt`, parsed. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from bennu.errors import BennuError

_TRUE: Final = {"1", "t", "T", "true", "TRUE", "True"}
_FALSE: Final = {"0", "f", "F", "false", "FALSE", "False"}


@dataclass(frozen=True, slots=True)
class Security:
    """`seccomp` None: the default profile; an empty one: no filter."""

    no_new_privileges: bool = False
    apparmor: str = ""
    seccomp: Mapping[str, Any] | None = None
    writable_cgroups: bool = False


def parse_security_options(options: Iterable[str]) -> Security:
    """Raises: BennuError (a 500, as dockerd) in dockerd's words."""
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
            found["seccomp"] = _profile(value)
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
    if value in _TRUE:
        return True
    if value in _FALSE:
        return False
    raise BennuError(f'invalid --security-opt 2: "{option}"')


def _profile(value: str) -> Mapping[str, Any] | None:
    if value == "unconfined":
        return {}
    if value in ("builtin", ""):
        return None
    try:
        profile: dict[str, Any] = msgspec.json.decode(value, type=dict[str, Any])
    except msgspec.DecodeError as error:
        raise BennuError(f"decoding seccomp profile failed: {error}") from None
    return profile
