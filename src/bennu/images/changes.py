"""`--change`: applies Dockerfile instructions to an image's configuration. Pure; pinned by `test_changes.py`.

The rules are those of moby `builder/dockerfile/dispatchers.go`.
"""

import posixpath
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from bennu.errors import InvalidParameter
from bennu.go.duration import parse_duration
from bennu.images.dockerfile import Instruction, expand, parse_instructions, parse_pairs, split_words
from bennu.lifecycle.signals import parse_signal

Config = dict[str, Any]
DEFAULT_SHELL: Final = ["/bin/sh", "-c"]
PORT: Final = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?(?:/(tcp|udp|sctp))?\Z", re.IGNORECASE | re.ASCII)
RETRIES: Final = re.compile(r"[0-9]{1,9}\Z", re.ASCII)
MIN_PROBE_NS: Final = 1_000_000
BUILD_ONLY: Final = frozenset({"ADD", "ARG", "COPY", "FROM", "MAINTAINER", "RUN", "SHELL"})


def apply_changes(config: Mapping[str, Any], changes: Sequence[str]) -> Config:
    """Answer the configuration (Docker's keys) after the instructions. Raises: InvalidParameter in Docker's words."""
    changed = dict(config)
    instructions = parse_instructions(changes)
    for instruction in instructions:
        if instruction.word in BUILD_ONLY:
            raise InvalidParameter(f"{instruction.word.lower()} is not a valid change command")
        if instruction.word not in APPLY:
            raise InvalidParameter(f"unknown instruction: {instruction.word}")
    command_given = False
    for instruction in instructions:
        command_given = command_given or instruction.word == "CMD"
        if instruction.word == "ENTRYPOINT" and not command_given:
            changed["Cmd"] = None  # a command belongs to the entrypoint it was written for
        APPLY[instruction.word](changed, instruction)
    return changed


def _env(config: Config) -> dict[str, str]:
    pairs = (entry.partition("=") for entry in config.get("Env") or [])
    return {key: value for key, _, value in pairs}


def _argument(config: Config, instruction: Instruction) -> str:
    if not instruction.rest:
        raise InvalidParameter(f"{instruction.word} requires exactly one argument")
    return expand(instruction.rest, _env(config))


def _argv(config: Config, instruction: Instruction) -> list[str]:
    given = instruction.json_list()
    if given is not None:
        return given
    return [*(config.get("Shell") or DEFAULT_SHELL), instruction.rest] if instruction.rest else []


def _cmd(config: Config, instruction: Instruction) -> None:
    config["Cmd"] = _argv(config, instruction)


def _entrypoint(config: Config, instruction: Instruction) -> None:
    config["Entrypoint"] = _argv(config, instruction) or None


def _set_env(config: Config, instruction: Instruction) -> None:
    env = _env(config) | parse_pairs(instruction, _env(config))
    config["Env"] = [f"{key}={value}" for key, value in env.items()]


def _label(config: Config, instruction: Instruction) -> None:
    config["Labels"] = {**(config.get("Labels") or {}), **parse_pairs(instruction, _env(config))}


def _expose(config: Config, instruction: Instruction) -> None:
    ports = dict(config.get("ExposedPorts") or {})
    words = split_words(expand(instruction.rest, _env(config)))
    if not words:
        raise InvalidParameter("EXPOSE requires at least one argument")
    for word in words:
        match = PORT.match(word)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
        if not match or not 0 < first <= last < 65536:
            raise InvalidParameter(f"invalid containerPort: {word}")
        ports |= {f"{port}/{(match[3] or 'tcp').lower()}": {} for port in range(first, last + 1)}
    config["ExposedPorts"] = ports


def _volume(config: Config, instruction: Instruction) -> None:
    given = instruction.json_list()
    paths = split_words(expand(instruction.rest, _env(config))) if given is None else given
    if not paths:
        raise InvalidParameter("VOLUME requires at least one argument")
    if not all(path.strip() for path in paths):
        raise InvalidParameter("VOLUME specified can not be an empty string")
    config["Volumes"] = {**(config.get("Volumes") or {}), **{path.strip(): {} for path in paths}}


def _user(config: Config, instruction: Instruction) -> None:
    config["User"] = _argument(config, instruction)


def _workdir(config: Config, instruction: Instruction) -> None:
    path = _argument(config, instruction)
    config["WorkingDir"] = posixpath.normpath(posixpath.join("/", config.get("WorkingDir") or "/", path))


def _stop_signal(config: Config, instruction: Instruction) -> None:
    signal = _argument(config, instruction)
    parse_signal(signal)
    config["StopSignal"] = signal


def _on_build(config: Config, instruction: Instruction) -> None:
    word = instruction.rest.partition(" ")[0].upper()
    if not word:
        raise InvalidParameter("ONBUILD requires at least one argument")
    if word == "ONBUILD":
        raise InvalidParameter("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed")
    if word in ("MAINTAINER", "FROM"):
        raise InvalidParameter(f"{word} isn't allowed as an ONBUILD trigger")
    config["OnBuild"] = [*(config.get("OnBuild") or []), instruction.rest]


def _healthcheck(config: Config, instruction: Instruction) -> None:
    word, _, rest = instruction.rest.partition(" ")
    word, rest = word.upper(), rest.strip()
    if word == "NONE":
        if rest:
            raise InvalidParameter("HEALTHCHECK NONE takes no arguments")
        config["Healthcheck"] = {"Test": ["NONE"]}
        return
    if word != "CMD":
        raise InvalidParameter(f'Unknown type "{word}" in HEALTHCHECK (try CMD)')
    command = Instruction("CMD", {}, rest)
    given = command.json_list()
    test = ["CMD-SHELL", rest] if given is None else ["CMD", *given]
    if not rest or test == ["CMD"]:
        raise InvalidParameter("Missing command after HEALTHCHECK CMD")
    config["Healthcheck"] = {"Test": test, **probe_times(instruction.flags)}


def probe_times(flags: Mapping[str, str]) -> dict[str, int]:
    """Turn the flags of HEALTHCHECK into fields of `Config.Healthcheck`, in ns. Raises: InvalidParameter."""
    times: dict[str, int] = {}
    for flag, key in PROBE_FLAGS.items():
        if flags.get(flag):
            try:
                times[key] = parse_duration(flags[flag], signed=True)
            except ValueError as error:
                raise InvalidParameter(str(error)) from None
            if 0 != times[key] < MIN_PROBE_NS:
                raise InvalidParameter(f'Interval "{flag}" cannot be less than 1ms')
    if "retries" in flags:
        if re.fullmatch(r"-[0-9]+", flags["retries"]):
            raise InvalidParameter(f"--retries cannot be negative ({flags['retries']})")
        if not RETRIES.match(flags["retries"]):
            raise InvalidParameter(f"--retries must be at least 0 (not {flags['retries']})")
        times["Retries"] = int(flags["retries"])
    unknown = set(flags) - {*PROBE_FLAGS, "retries"}
    if unknown:
        raise InvalidParameter(f"unknown flag: {min(unknown)}")
    return {key: value for key, value in times.items() if value}


PROBE_FLAGS: Final = {
    "interval": "Interval",
    "timeout": "Timeout",
    "start-period": "StartPeriod",
    "start-interval": "StartInterval",
}

APPLY: Final[Mapping[str, Callable[[Config, Instruction], None]]] = {
    "CMD": _cmd,
    "ENTRYPOINT": _entrypoint,
    "ENV": _set_env,
    "EXPOSE": _expose,
    "HEALTHCHECK": _healthcheck,
    "LABEL": _label,
    "ONBUILD": _on_build,
    "STOPSIGNAL": _stop_signal,
    "USER": _user,
    "VOLUME": _volume,
    "WORKDIR": _workdir,
}
