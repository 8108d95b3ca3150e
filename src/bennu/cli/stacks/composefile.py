"""Compose files: read, checked, filled in and merged into one.

What a stack cannot honour is told apart as docker does: *forbidden* options end it, *unsupported* and *deprecated* ones
are named and passed over, and a name that compose does not know at all is an error.
"""

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import yaml

from bennu.cli.failure import Failure
from bennu.cli.output import complain
from bennu.cli.stacks import fields
from bennu.cli.stacks.interpolation import interpolate
from bennu.cli.stacks.names import DEPRECATED, FORBIDDEN, KNOWN, SECTIONS, UNSUPPORTED
from bennu.cli.values import read_lines_file

Dict = dict[str, Any]
# Each form of a service's field in one shape, so that files can be merged field by field.
SHAPES: Final[Mapping[str, Callable[[Any], Any]]] = {
    "cap_add": fields.texts,
    "cap_drop": fields.texts,
    "command": fields.shell_words,
    "configs": fields.references,
    "deploy": fields.mapping,
    "dns": fields.texts,
    "dns_search": fields.texts,
    "entrypoint": fields.shell_words,
    "env_file": fields.texts,
    "environment": fields.environment,
    "extra_hosts": fields.hosts,
    "healthcheck": fields.mapping,
    "labels": fields.pairs,
    "logging": fields.mapping,
    "networks": fields.networks,
    "ports": fields.ports,
    "secrets": fields.references,
    "sysctls": fields.pairs,
    "ulimits": fields.ulimits,
}
WHOLE: Final = frozenset({"command", "entrypoint", "test"})  # a later file replaces these
SAME: Final[Mapping[str, Callable[[Dict], Any]]] = {  # entries of a list that a later file replaces one by one
    "ports": lambda port: (port["TargetPort"], port["Protocol"], port["PublishMode"], port["PublishedPort"]),
    "volumes": lambda volume: volume.get("target"),
    "secrets": lambda secret: secret.get("target") or secret.get("source"),
    "configs": lambda config: config.get("target") or config.get("source"),
}


@dataclass(slots=True)
class Compose:
    """The sections of all files together, in one shape each."""

    services: dict[str, Dict] = field(default_factory=dict)
    networks: dict[str, Dict] = field(default_factory=dict)
    volumes: dict[str, Dict] = field(default_factory=dict)
    secrets: dict[str, Dict] = field(default_factory=dict)
    configs: dict[str, Dict] = field(default_factory=dict)


def load(names: Sequence[str]) -> Compose:
    """Read the files ("-": standard input), later ones over earlier ones. Raises: Failure."""
    if not names:
        raise Failure("Please specify a Compose file (with --compose-file).")
    documents = [read(name) for name in names]
    versions = {fields.text(document.get("version")) for document in documents}
    if len(versions) > 1:
        raise Failure(f"version mismatched between two composefiles : {' and '.join(sorted(versions))}")
    tell_what_is_passed_over(documents)
    folder = Path.cwd() if names[0] == "-" else Path(names[0]).absolute().parent
    merged = Compose()
    for document in documents:
        check_version(fields.text(document.get("version")))
        for section in SECTIONS:
            filled = interpolate(document.get(section) or {}, os.environ, section)
            found = shaped(section, filled, folder)
            setattr(merged, section, merge(getattr(merged, section), found))
    for name, service in merged.services.items():
        if not service.get("image"):
            raise Failure(f"invalid image reference for service {name}: no image specified")
    return merged


def read(name: str) -> Dict:
    try:
        text = sys.stdin.read() if name == "-" else Path(name).read_text(encoding="utf-8")
        document = yaml.safe_load(text)
    except OSError as error:
        raise Failure(f"open {name}: {(error.strerror or str(error)).lower()}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise Failure(f"{name}: {error}") from None
    if not isinstance(document, dict):
        raise Failure("top-level object must be a mapping")
    check_keys(document, "")
    return document


def check_keys(value: Any, path: str) -> None:
    if isinstance(value, dict):
        for key, part in value.items():
            if not isinstance(key, str):
                raise Failure(f"non-string key {f'in {path}' if path else 'at top level'}: {key!r}")
            check_keys(part, f"{path}.{key}" if path else key)
    elif isinstance(value, list):
        for number, part in enumerate(value):
            check_keys(part, f"{path}[{number}]")


def check_version(version: str) -> None:
    if version and not (version == "3" or version.startswith("3.")):
        raise Failure(f"unsupported Compose file version: {version}")


def tell_what_is_passed_over(documents: Sequence[Dict]) -> None:
    """Raises: Failure for options that a stack must not have."""
    used: set[str] = set()
    for document in documents:
        services = document.get("services")
        for service in services.values() if isinstance(services, dict) else ():
            used |= set(service) if isinstance(service, dict) else set()
    if forbidden := {key: why for key, why in FORBIDDEN.items() if key in used}:
        raise Failure(f"Compose file contains unsupported options:\n\n{listed(forbidden)}\n")
    if unsupported := sorted(UNSUPPORTED & used):
        complain(f"Ignoring unsupported options: {', '.join(unsupported)}\n")
    if deprecated := {key: why for key, why in DEPRECATED.items() if key in used}:
        complain(f"Ignoring deprecated options:\n\n{listed(deprecated)}\n")


def listed(reasons: Mapping[str, str]) -> str:
    return "\n\n".join(f"{key}: {why}" for key, why in sorted(reasons.items()))


def shaped(section: str, values: Any, folder: Path) -> dict[str, Dict]:
    """The section in one shape. Raises: Failure with the path of what is wrong."""
    if not isinstance(values, dict):
        raise Failure(f"{section} must be a mapping")
    found: dict[str, Dict] = {}
    for name, value in values.items():
        path = f"{section}.{name}"
        if not isinstance(value, dict | (type(None) if section != "services" else dict)):
            raise Failure(f"{path} must be a mapping")
        given: Dict = value or {}
        check_known(section, given, path)
        found[name] = shaped_service(given, path, folder) if section == "services" else dict(given)
        if section == "services":
            continue
        if section in ("secrets", "configs") and found[name].get("file"):
            found[name]["file"] = str(folder / found[name]["file"])
        if "labels" in found[name]:
            found[name]["labels"] = fields.pairs(found[name]["labels"])
    return found


def check_known(kind: str, value: Any, path: str) -> None:
    """Raises: Failure for a name that compose does not know there."""
    known = KNOWN.get(kind)
    if known is None or not isinstance(value, dict):
        return
    for key, part in value.items():
        if key not in known and not key.startswith("x-"):
            raise Failure(f"{path} Additional property {key} is not allowed")
        check_known(f"{kind}.{key}", part, f"{path}.{key}")


def shaped_service(service: Dict, path: str, folder: Path) -> Dict:
    found: Dict = {}
    for key, value in service.items():
        if value is None or key.startswith("x-"):
            continue
        try:
            found[key] = (
                fields.volumes(value, folder) if key == "volumes" else SHAPES.get(key, lambda same: same)(value)
            )
        except ValueError as error:
            raise Failure(f"{path}.{key} {error}") from None
    deploy = found.get("deploy")
    if deploy and deploy.get("labels"):
        found["deploy"] = {**deploy, "labels": fields.pairs(deploy["labels"])}
    found["environment"] = resolved(found.get("environment") or {}, found.pop("env_file", ()), folder)
    return found


def resolved(given: Mapping[str, str | None], files: Sequence[str], folder: Path) -> dict[str, str | None]:
    """Files first. What has no value takes that of this process, and stays without when there is none."""
    found: dict[str, str | None] = {}
    lines = [line for name in files for line in read_lines_file(str(folder / name), "env")]
    for values in (fields.environment(lines), given):
        for name, value in values.items():
            found[name] = value or os.environ.get(name, value)
    return found


def itself(entry: Dict) -> Any:
    return entry


def merge(base: Dict, over: Dict) -> Dict:
    """Mappings are merged; lists are joined, entry by entry where an entry has a name; all else is replaced."""
    merged = dict(base)
    for key, value in over.items():
        before = merged.get(key)
        if isinstance(before, dict) and isinstance(value, dict):
            merged[key] = merge(before, value)
        elif isinstance(before, list) and isinstance(value, list) and key not in WHOLE:
            same: Callable[[Dict], Any] = SAME.get(key, itself)
            replaced = [same(entry) for entry in value]
            merged[key] = [entry for entry in before if same(entry) not in replaced] + value
        else:
            merged[key] = value
    return merged
