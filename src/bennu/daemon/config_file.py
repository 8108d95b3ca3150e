"""The configuration file: the same settings as on the command line, under dockerd's names, as JSON.

What is wrong is said in dockerd's words (moby `daemon/config/config.go`), for its users and their scripts know them.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from bennu.daemon.flags import FLAGS, Kind, Settings
from bennu.daemon.proxies import PROXIES, mask_credentials
from bennu.errors import BennuError, InvalidParameter

KEY_TO_FLAG: Final = {flag.file_key or name: name for name, flag in FLAGS.items()}
SECTIONS: Final = frozenset({"proxies"})  # objects whose entries are settings of their own
IGNORED: Final = frozenset({"builder", "deprecated-key-path"})  # not flags; dockerd takes them, too
NUMBERS: Final = frozenset(
    {
        *("cpu-rt-period", "cpu-rt-runtime", "default-stop-timeout", "keep-deaths", "max-concurrent-downloads"),
        *("max-concurrent-uploads", "max-download-attempts", "mtu", "network-control-plane-mtu", "shutdown-timeout"),
    }
)
SIZES: Final = frozenset({"default-shm-size"})  # a number, or a text such as `64m`
GO_TYPES: Final = {Kind.SWITCH: "bool", Kind.VALUE: "string", Kind.LIST: "[]string"}
JSON_TYPES: Final = (
    (bool, "bool"),
    (int, "number"),
    (float, "number"),
    (str, "string"),
    (list, "array"),
    (dict, "object"),
)
MAY_BE_IN_BOTH: Final = frozenset({"add-runtime"})


def parse_file(path: Path, flags: Settings) -> Settings:
    """Read the file. Raises: BennuError naming it and what is wrong, also for what is among the flags, too."""
    wrong = f"unable to configure the Docker daemon with file {path}: "
    try:
        content = json.loads(path.read_bytes().decode("utf-8-sig").strip() or "{}")
    except OSError as error:
        raise BennuError(f"{wrong}open {path}: {(error.strerror or str(error)).lower()}") from None
    except (ValueError, RecursionError) as error:
        raise BennuError(f"{wrong}invalid JSON: {error}") from None
    if not isinstance(content, dict):
        raise BennuError(f"{wrong}it must hold one JSON object")
    if r"\u0000" in json.dumps(content).replace(r"\\", ""):  # no path, name or address has one
        raise BennuError(f"{wrong}invalid JSON: a NUL character in a string")
    content = {key: value for key, value in _flatten(content).items() if value is not None}
    unknown = sorted(set(content) - set(KEY_TO_FLAG) - IGNORED)
    if unknown:
        raise BennuError(f"{wrong}the following directives don't match any configuration option: {', '.join(unknown)}")
    given = {KEY_TO_FLAG[key]: (key, value) for key, value in content.items() if key not in IGNORED}
    if both := [
        _conflict(flags, name, *given[name]) for name in sorted(given) if name in flags.keys() - MAY_BE_IN_BOTH
    ]:
        raise InvalidParameter(
            f"{wrong}the following directives are specified both as a flag and in the configuration file: "
            + ", ".join(both)
        )
    try:
        return {name: _read_value(name, key, value) for name, (key, value) in given.items()}
    except InvalidParameter as error:
        raise InvalidParameter(f"{wrong}{error}") from None


def _flatten(content: Mapping[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in content.items():
        if key in SECTIONS and isinstance(value, dict):
            flat |= value
        else:
            flat[key] = value
    return flat


def _conflict(flags: Settings, name: str, key: str, value: Any) -> str:
    ours, theirs = _go_value(flags[name]), _go_value(value)
    if name in PROXIES:
        ours, theirs = mask_credentials(ours), mask_credentials(theirs)
    return f"{key}: (from flag: {ours}, from file: {theirs})"


def _go_value(value: Any) -> str:
    """Write a value as Go's `%v`."""
    match value:
        case bool():
            return "true" if value else "false"
        case list():
            return f"[{' '.join(_go_value(entry) for entry in value)}]"
        case dict():
            return f"map[{' '.join(f'{key}:{_go_value(value[key])}' for key in sorted(value))}]"
        case _:
            return str(value)


def _read_value(name: str, key: str, value: Any) -> str | bool | list[str]:
    """Read a value as what it is on the command line. Raises: InvalidParameter for one of another type."""
    match FLAGS[name].kind, value:
        case Kind.SWITCH, bool():
            return value
        case Kind.LIST, dict():
            return [pair for one, entry in value.items() for pair in _pairs(name, one, entry)]
        case Kind.LIST, list():
            return [_entry(entry) for entry in value]
        case Kind.VALUE, int() if not isinstance(value, bool) and name in NUMBERS | SIZES:
            return str(value)
        case Kind.VALUE, str() if name not in NUMBERS:
            return value
    wanted = "int" if name in NUMBERS else GO_TYPES[FLAGS[name].kind]
    given = next(word for kind, word in JSON_TYPES if isinstance(value, kind))
    raise InvalidParameter(
        f"invalid JSON: json: cannot unmarshal {given} into Go struct field Config.{key} of type {wanted}"
    )


def _pairs(name: str, key: str, entry: Any) -> list[str]:
    """Write an entry of an object as on the command line; options of a network driver are an object, too."""
    match name, entry:
        case "default-ulimit", {"Soft": soft, "Hard": hard}:
            return [f"{key}={soft}:{hard}"]
        case "add-runtime", dict():
            return [f"{key}={entry.get('path') or entry.get('runtimeType') or ''}"]
        case "default-network-opt", dict():
            return [f"{key}={option}={value}" for option, value in entry.items()]
        case _:
            return [f"{key}={_go_value(entry)}"]


def _entry(entry: Any) -> str:
    """Write a list's entry as on the command line: an address pool is an object in a file."""
    return ",".join(f"{key}={value}" for key, value in entry.items()) if isinstance(entry, Mapping) else str(entry)
