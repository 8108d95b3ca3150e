"""Placement constraints: Docker's little grammar, and the test whether a node satisfies them.

    constraint = key blank* ("==" | "!=") blank* value        all constraints of a list must hold

Values are compared as whole strings, without regard to case; there are no patterns. An absent label is the empty
string, so `!=` holds for it. An unknown key never matches and is no error: a node of a later version may know it.
Keys: node.id, node.hostname, node.ip (address or CIDR), node.role, node.platform.os, node.platform.arch,
node.labels.<key>, engine.labels.<key>; the label's own key is case-sensitive.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from bennu.errors import BennuError
from bennu.orchestration.model.nouns import Node

_KEY: Final = re.compile(r"[a-z_][a-z0-9\-_.]+", re.IGNORECASE)
_VALUE: Final = re.compile(r"[a-z0-9:\-_\s.*()?+\[\]\\^$|/]+", re.IGNORECASE)
_NODE_LABEL: Final = "node.labels."
_ENGINE_LABEL: Final = "engine.labels."


class BadConstraint(BennuError):
    """A constraint that cannot be read. Docker answers these with a plain 500, so it is no InvalidParameter."""


@dataclass(frozen=True, slots=True)
class Constraint:
    key: str
    wants_equal: bool
    value: str

    def __str__(self) -> str:
        return f"{self.key}{'==' if self.wants_equal else '!='}{self.value}"


def parse_constraint(text: str) -> Constraint:
    """Read one constraint. Raises BadConstraint in Docker's words."""
    for operator in ("==", "!="):
        if operator not in text:
            continue
        key, value = (part.strip() for part in text.split(operator, 1))
        if not _KEY.fullmatch(key):
            raise BadConstraint(f"key '{key}' is invalid")
        if not _VALUE.fullmatch(value):
            raise BadConstraint(f"value '{value}' is invalid")
        return Constraint(key, operator == "==", value)
    raise BadConstraint("constraint expected one operator from ==, !=")


@lru_cache(maxsize=4096)
def parse_constraints(texts: tuple[str, ...]) -> tuple[Constraint, ...]:
    """Read a list of constraints. Raises BadConstraint at the first that cannot be read."""
    return tuple(parse_constraint(text) for text in texts)


def unmet_constraint(constraints: tuple[str, ...], node: Node) -> Constraint | None:
    """Find the first constraint that the node does not satisfy, or None. The texts must be readable."""
    return next((wanted for wanted in parse_constraints(constraints) if not _holds(wanted, node)), None)


def satisfies(constraints: tuple[str, ...], node: Node | None) -> bool:
    """Tell whether the node satisfies all constraints; no node satisfies nothing, not even an empty list."""
    return node is not None and unmet_constraint(constraints, node) is None


def _holds(wanted: Constraint, node: Node) -> bool:
    if wanted.key.lower() == "node.ip":
        return _holds_for_address(wanted, node.address)
    actual = node_attribute(wanted.key, node)
    if actual is None:
        return False
    return (actual.lower() == wanted.value.lower()) is wanted.wants_equal


def node_attribute(key: str, node: Node) -> str | None:
    """Read the attribute that a constraint or a spread preference names; None if there is no such attribute."""
    lowered = key.lower()
    if lowered.startswith(_NODE_LABEL) and len(key) > len(_NODE_LABEL):
        return node.labels.get(key[len(_NODE_LABEL) :], "")
    if lowered.startswith(_ENGINE_LABEL) and len(key) > len(_ENGINE_LABEL):
        return node.engine_labels.get(key[len(_ENGINE_LABEL) :], "")
    match lowered:
        case "node.id":
            return node.id
        case "node.hostname":
            return node.hostname
        case "node.role":
            return node.role.value
        case "node.platform.os":
            return node.os
        case "node.platform.arch":
            return node.architecture
    return None


def _holds_for_address(wanted: Constraint, address: str) -> bool:
    """Tell whether a constraint holds for an address.

    A malformed network in the constraint matches nothing, with either operator.
    """
    try:
        network = ipaddress.ip_network(wanted.value, strict=False)
    except ValueError:
        return False
    try:
        inside = ipaddress.ip_address(address) in network
    except ValueError:
        inside = False
    return inside is wanted.wants_equal
