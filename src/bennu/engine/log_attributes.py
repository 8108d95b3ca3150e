"""What each line of a `json-file` log tells of its container: `tag`, `labels`, `labels-regex`, `env`, `env-regex`."""

import json
import sys
from collections.abc import Collection, Mapping, Sequence
from typing import Final

import msgspec

from bennu.engine.logs.options import ATTRIBUTE_OPTIONS, REGEX_OPTIONS
from bennu.engine.record import Record
from bennu.errors import BennuError, InvalidParameter
from bennu.go.printing import Struct, Value
from bennu.go.rfc3339 import format_rfc3339
from bennu.go.template import expand_template
from bennu.go.template_functions import Function
from bennu.go.template_syntax import TemplateError
from bennu.process import HelperTimeout, run

MATCH_WITHIN_S: Final = 2.0
# Python's expressions can take for ever, and bennud would stand still: another process does the matching.
MATCH: Final = """
import json, re, sys
asked = json.load(sys.stdin)
json.dump([[name for name in names if re.search(pattern, name)] for pattern, names in asked], sys.stdout)
"""
GO_ESCAPES: Final = (("<", "\\u003c"), (">", "\\u003e"), ("&", "\\u0026"), ("\u2028", "\\u2028"), ("\u2029", "\\u2029"))


async def read_attributes(record: Record, log_path: str) -> str:
    """Make the `attrs` of a container's lines: an object in JSON, or nothing. Raises: BennuError."""
    options = record.host_config.log_config.config or {}
    if not options.keys() & ATTRIBUTE_OPTIONS:
        return ""
    labels = record.config.labels or {}
    variables = dict(entry.split("=", 1) for entry in record.config.env or () if "=" in entry)
    chosen = _named(options.get("labels", ""), labels)
    patterns = [options.get(option, "") for option in REGEX_OPTIONS]
    by_label, by_variable = await _match(patterns, (labels, variables)) if any(patterns) else ([], [])
    chosen |= {name: labels[name] for name in by_label}
    chosen |= _named(options.get("env", ""), variables)
    chosen |= {name: variables[name] for name in by_variable}
    if tag := expand_tag(options.get("tag", ""), _describe(record, log_path)):
        chosen["tag"] = tag
    return encode_as_go(chosen) if chosen else ""


def check_tag(options: Mapping[str, str]) -> None:
    """Check the template of a tag. Raises: InvalidParameter."""
    expand_tag(options.get("tag", ""), _describe(None, ""))


def expand_tag(template: str, info: Struct) -> str:
    """Expand the template of a tag. Raises: InvalidParameter in Go's words."""
    try:
        return expand_template(template, info, FUNCTIONS, "log-tag")
    except TemplateError as error:
        raise InvalidParameter(f"failed to initialize logging driver: {error}") from error


def encode_as_go(value: object) -> str:
    """Encode as Go's `json.Marshal` does: keys in their order, and what HTML would take for its own escaped."""
    text = json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    for plain, escaped in GO_ESCAPES:
        text = text.replace(plain, escaped)
    return text


def _named(names: str, values: Mapping[str, str]) -> dict[str, str]:
    return {name: values[name] for name in names.split(",") if name in values}


async def _match(patterns: Sequence[str], names: Sequence[Collection[str]]) -> list[list[str]]:
    """Find for each pattern the names that it matches; an empty one matches none. Raises: BennuError."""
    asked = [(pattern, list(some) if pattern else []) for pattern, some in zip(patterns, names, strict=True)]
    argv = [sys.executable, "-I", "-S", "-c", MATCH]
    wrong = "failed to initialize logging driver: "
    try:
        done = await run(argv, timeout_s=MATCH_WITHIN_S, stdin=msgspec.json.encode(asked))
    except HelperTimeout:
        told = " or ".join(f'"{pattern}"' for pattern, some in asked if some)
        raise BennuError(f"{wrong}{told} takes more than {MATCH_WITHIN_S:g} s to match") from None
    if done.exit_code:
        raise BennuError(wrong + done.stderr.decode(errors="replace").strip()[-200:])
    return msgspec.json.decode(done.stdout, type=list[list[str]])


def _describe(record: Record | None, log_path: str) -> Struct:
    """Describe a container, or none yet, as the template of a tag sees it."""
    id_, name, image_id, image = ("", "", "", "") if record is None else _names(record)
    path, args = ("", []) if record is None else (record.path, record.args)
    config = {} if record is None else record.host_config.log_config.config or {}
    fields: dict[str, Value] = {
        "Config": config,
        "ContainerID": id_,
        "ContainerName": f"/{name}",
        "ContainerEntrypoint": path,
        "ContainerArgs": args,
        "ContainerImageID": image_id,
        "ContainerImageName": image,
        "ContainerCreated": "" if record is None else format_rfc3339(record.created_ns),
        "ContainerEnv": [] if record is None else record.config.env or [],
        "ContainerLabels": {} if record is None else record.config.labels or {},
        "LogPath": log_path,
        "DaemonName": "docker",
        "Command": " ".join([path, *args]),
        "ID": id_[:12],
        "FullID": id_,
        "Name": name,
        "ImageID": image_id[:12],
        "ImageFullID": image_id,
        "ImageName": image,
    }
    return Struct("*logger.Info", fields)


def _names(record: Record) -> tuple[str, str, str, str]:
    return record.id, record.name, record.image_id, record.config.image


def _only(arguments: Sequence[Value], name: str) -> str:
    if len(arguments) != 1 or not isinstance(arguments[0], str):
        raise ValueError(f"error calling {name}: it takes one string")
    return arguments[0]


def _plain(value: Value) -> object:
    if isinstance(value, Struct):
        return {name: _plain(field) for name, field in value.fields.items()}
    if isinstance(value, Mapping):
        return {name: _plain(field) for name, field in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(element) for element in value]
    return value


FUNCTIONS: Final[Mapping[str, Function]] = {
    "json": lambda arguments: encode_as_go(_plain(arguments[0] if arguments else "")),
    "lower": lambda arguments: _only(arguments, "lower").lower(),
    "upper": lambda arguments: _only(arguments, "upper").upper(),
    "title": lambda arguments: _only(arguments, "title").title(),
}
