"""What the command line says of containers that do not say it themselves."""

import re
from pathlib import Path
from typing import Final

from bennu.daemon.flags import Settings
from bennu.engine.log_attributes import check_tag
from bennu.engine.logs.options import parse_log_options
from bennu.errors import BennuError, InvalidParameter, NotImplementedHere
from bennu.go.units import parse_size
from bennu.model import Ulimit
from bennu.runtime.container_defaults import DEFAULT_GROUP, LOG_DRIVER, SHM_SIZE, ContainerDefaults
from bennu.runtime.resources import RLIMITS
from bennu.runtime.seccomp import Seccomp
from bennu.runtime.seccomp_profile import SeccompProfile

BUILTIN: Final = "builtin"
ULIMIT: Final = re.compile(r"([a-z]+)=(-?[0-9]+)(?::(-?[0-9]+))?\Z", re.ASCII)


def read_container_defaults(settings: Settings) -> ContainerDefaults:
    """Read the defaults of containers. Reads the seccomp profile's file. Raises: BennuError, InvalidParameter."""
    check_exec_options(settings)
    limits = settings.get("default-ulimit", [])
    driver, options = _read_log_options(settings)
    return ContainerDefaults(
        shm_size=_read_shm_size(str(settings.get("default-shm-size", SHM_SIZE))),
        ipc_mode=_read_ipc_mode(str(settings.get("default-ipc-mode") or "private")),
        cgroupns_mode=_read_cgroupns_mode(str(settings.get("default-cgroupns-mode", ""))),
        cgroup_parent=_read_cgroup_parent(str(settings.get("cgroup-parent") or DEFAULT_GROUP)),
        ulimits=tuple({limit.name: limit for limit in map(parse_ulimit, limits)}.values())
        if isinstance(limits, list)
        else (),
        init=bool(settings.get("init")),
        no_new_privileges=bool(settings.get("no-new-privileges")),
        seccomp=_read_seccomp(seccomp_name(settings)),
        log_driver=driver,
        log_options=options,
    )


def _read_log_options(settings: Settings) -> tuple[str, dict[str, str]]:
    """Read `--log-driver` and `--log-opt`. Raises: InvalidParameter, NotImplementedHere for a driver of Docker's."""
    driver = str(settings.get("log-driver") or LOG_DRIVER)
    entries = settings.get("log-opt", [])
    options = dict(entry.partition("=")[::2] for entry in entries) if isinstance(entries, list) else {}
    try:
        parse_log_options(driver, options)
        check_tag(options)
    except InvalidParameter as error:
        raise InvalidParameter(f"failed to set log opts: {error}") from None
    return driver, options


def seccomp_name(settings: Settings) -> str:
    """Answer what `--seccomp-profile` names: `builtin`, `unconfined` or a file."""
    return str(settings.get("seccomp-profile") or BUILTIN)


def parse_ulimit(text: str) -> Ulimit:
    """Parse `nofile=1024:2048`; one number is both. Raises: InvalidParameter in the words of go-units."""
    match = ULIMIT.match(text)
    if not match:
        raise InvalidParameter(f"invalid ulimit argument: {text}")
    soft = int(match[2])
    hard = soft if match[3] is None else int(match[3])
    if f"RLIMIT_{match[1].upper()}" not in RLIMITS or match[1] == "as":
        raise InvalidParameter(f"invalid ulimit type: {match[1]}")
    if hard >= 0 and (soft > hard or soft == -1):
        raise InvalidParameter(f"ulimit soft limit must be less than or equal to hard limit: {soft} > {hard}")
    return Ulimit(name=match[1], soft=soft, hard=hard)


def check_exec_options(settings: Settings) -> None:
    """Check `--exec-opt`. Raises: InvalidParameter, NotImplementedHere."""
    entries = settings.get("exec-opt", [])
    for entry in entries if isinstance(entries, list) else []:
        key, found, value = entry.partition("=")
        if not found or not key.strip():
            raise InvalidParameter(f"invalid exec-opt '{entry}': must be in format option=value")
        if key.strip().lower() == "isolation":
            raise InvalidParameter(f"invalid exec-opt '{entry}': option 'isolation' is only supported on windows")
        if key.strip().lower() != "native.cgroupdriver":
            raise InvalidParameter(f"invalid exec-opt '{entry}': unknown option: '{key}'")
        if value == "systemd":
            raise NotImplementedHere("--exec-opt native.cgroupdriver=systemd is not implemented: use cgroupfs")
        if value not in ("", "cgroupfs"):
            raise InvalidParameter(f"native.cgroupdriver option {value} not supported")


def _read_shm_size(text: str) -> int:
    try:
        return parse_size(text, 1024)
    except ValueError as error:
        raise InvalidParameter(f'invalid argument "{text}" for "--default-shm-size" flag: {error}') from None


def _read_ipc_mode(mode: str) -> str:
    hint = 'use "shareable" or "private"'
    if mode in ("none", "host") or mode.startswith("container:"):
        raise InvalidParameter(f'IPC mode "{mode}" is not supported as default value; {hint}')
    if mode not in ("private", "shareable"):
        raise InvalidParameter(f"default IPC mode setting ({mode}) is invalid; {hint}")
    return mode


def _read_cgroupns_mode(mode: str) -> str:
    if mode not in ("", "host", "private"):
        raise InvalidParameter(f'invalid default cgroup namespace ({mode}): use "host" or "private"')
    return mode


def _read_cgroup_parent(path: str) -> str:
    if "\n" in path or ".." in path.split("/"):
        raise InvalidParameter(f"invalid cgroup parent: {path!r}")
    return path if path.startswith("/") else f"/{path}"


def _read_seccomp(name: str) -> Seccomp | SeccompProfile | None:
    if name == BUILTIN:
        return None
    if name == Seccomp.UNCONFINED:
        return Seccomp.UNCONFINED
    try:
        content = Path(name).read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise BennuError(f"opening seccomp profile ({name}) failed: {error}") from None
    try:
        return SeccompProfile.parse(content)
    except InvalidParameter as error:
        raise InvalidParameter(f"seccomp profile {name}: {error}") from None
