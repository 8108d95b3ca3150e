"""`{{.Task.Slot}}` and its like in a task's environment, hostname and mounts: the part of Go's templates that Docker's
services use; and, in secrets and configs that are templates themselves, what else the task is given.

    action    = "{{" ["-"] pipeline ["-"] "}}"        "-" eats the white space on that side
    pipeline  = command { "|" command }               the value of one is the last argument of the next
    command   = ".Service.ID" … | "join" arg arg… | "index" map key | "string"
              | "secret" target | "config" target | "env" name        (only in a payload)
    arg       = field | "string" | "(" pipeline ")"

Fields: .Service.ID .Service.Name .Service.Labels.<key> .Node.ID .Node.Hostname .Node.Platform.OS
.Node.Platform.Architecture .Task.ID .Task.Name .Task.Slot; the last is the node's id where there is no slot. A missing
label is an error, an unknown field too, in Go's words, because that is what people have learnt to read.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from bennu.errors import InvalidParameter

Value: TypeAlias = "str | Mapping[str, Value]"

MAX_DEPTH: Final = 100  # of parentheses within each other
_TOKEN: Final = re.compile(r'\s*(?:("(?:\\.|[^"\\])*"|`[^`]*`)|(\.[\w.]*)|([A-Za-z_]\w*)|([()|]))')
_TYPES: Final = {
    "": "*template.Context",
    "Service": "struct { ID string; Name string; Labels map[string]string }",
    "Node": "struct { ID string; Hostname string; Platform template.Platform }",
    "Node.Platform": "template.Platform",
    "Task": "struct { ID string; Name string; Slot string }",
}


class BadTemplate(InvalidParameter):
    """A template that cannot be read or expanded. The message is Go's, without what it was expanded for."""


@dataclass(frozen=True, slots=True)
class Payload:
    """What templates of secrets and configs can ask for: those of the task, by their targets, and its environment."""

    secrets: Mapping[str, str] = field(default_factory=dict)
    configs: Mapping[str, str] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)

    def find(self, kind: str, name: str) -> str | None:
        """None: there is no such secret or config. An absent variable is empty."""
        if kind == "env":
            return self.env.get(name, "")
        return (self.secrets if kind == "secret" else self.configs).get(name)


@dataclass(frozen=True, slots=True)
class TemplateContext:
    """What a template can name. `slot` 0 means that the task has none."""

    service_id: str = ""
    service_name: str = ""
    service_labels: Mapping[str, str] = field(default_factory=dict)
    node_id: str = ""
    node_hostname: str = ""
    node_os: str = ""
    node_architecture: str = ""
    task_id: str = ""
    slot: int = 0

    @property
    def slot_text(self) -> str:
        return str(self.slot) if self.slot else self.node_id

    @property
    def task_name(self) -> str:
        """`web.1.<task id>`, or with the node's id where there is no slot; also the container's name."""
        return f"{self.service_name}.{self.slot_text}.{self.task_id}"

    def tree(self) -> Mapping[str, Value]:
        platform: Value = {"OS": self.node_os, "Architecture": self.node_architecture}
        return {
            "Service": {"ID": self.service_id, "Name": self.service_name, "Labels": dict(self.service_labels)},
            "Node": {"ID": self.node_id, "Hostname": self.node_hostname, "Platform": platform},
            "Task": {"ID": self.task_id, "Name": self.task_name, "Slot": self.slot_text},
        }


def expand(template: str, context: TemplateContext, payload: Payload | None = None) -> str:
    """The template with every action replaced by its value. Raises BadTemplate."""
    if "{{" not in template:
        return template
    out: list[str] = []
    position = 0
    trim = False
    while (start := template.find("{{", position)) >= 0:
        end = template.find("}}", start + 2)
        if end < 0:
            raise BadTemplate("template: expansion:1: unclosed action")
        before, source, after, offset = _read_action(template, start + 2, end)
        text = template[position:start]
        text = text.lstrip() if trim else text
        out.append(text.rstrip() if before else text)
        out.append(_Expansion(template, offset, source, context.tree(), payload).run())
        trim = after
        position = end + 2
    rest = template[position:]
    out.append(rest.lstrip() if trim else rest)
    return "".join(out)


def _read_action(template: str, start: int, end: int) -> tuple[bool, str, bool, int]:
    """Whether white space goes before it, its pipeline, whether it goes after it, and where the pipeline begins."""
    before = template[start : start + 1] == "-" and template[start + 1 : min(start + 2, end)].isspace()
    start += 2 if before else 0
    after = end - start >= 2 and template[end - 1] == "-" and template[end - 2].isspace()
    return before, template[start : end - 2 if after else end], after, start


def expand_env(env: Sequence[str], context: TemplateContext) -> list[str]:
    """The values (not the names) of `K=V` entries expanded. Raises BadTemplate in Docker's words."""
    expanded = []
    for entry in env:
        name, sign, value = entry.partition("=")
        try:
            expanded.append(f"{name}{sign}{expand(value, context)}")
        except BadTemplate as error:
            quoted = entry.replace("\\", "\\\\").replace('"', '\\"')
            raise BadTemplate(f'expanding env failed: expanding env "{quoted}": {error}') from error
    return expanded


@dataclass(slots=True)
class _Expansion:
    """One action: a small recursive descent over its tokens."""

    template: str
    offset: int
    source: str
    tree: Mapping[str, Value]
    payload: Payload | None
    tokens: list[tuple[str, str, int]] = field(default_factory=list)
    at: int = 0
    depth: int = 0

    def run(self) -> str:
        self._read_tokens()
        value = self._pipeline()
        if self.at < len(self.tokens):
            raise self._error(f"unexpected {self.tokens[self.at][1]!r} in action")
        if not isinstance(value, str):
            return "map[" + " ".join(f"{key}:{value[key]}" for key in sorted(value)) + "]"
        return value

    def _read_tokens(self) -> None:
        position = 0
        body = self.source.rstrip()
        while position < len(body):
            match = _TOKEN.match(body, position)
            if match is None:
                raise self._error(f"unexpected {body[position:].strip()[:1]!r} in command")
            kind = ("string", "field", "name", "sign")[(match.lastindex or 1) - 1]
            self.tokens.append((kind, match[match.lastindex or 1], match.start(match.lastindex or 1)))
            position = match.end()
        if not self.tokens:
            raise self._error("missing value for command")

    def _pipeline(self) -> Value:
        value = self._command(())
        while self._peek() == "|":
            self.at += 1
            value = self._command((value,))
        return value

    def _command(self, piped: tuple[Value, ...]) -> Value:
        if self.at >= len(self.tokens):
            raise self._error("missing value for command")
        kind, text, _ = self.tokens[self.at]
        if kind != "name":
            value = self._argument()
            if piped:
                raise self._error(f"can't give argument to non-function {text}")
            return value
        self.at += 1
        arguments: list[Value] = []
        while self.at < len(self.tokens) and self._peek() not in ("|", ")"):
            arguments.append(self._argument())
        return self._call(text, (*arguments, *piped))

    def _argument(self) -> Value:
        kind, text, where = self.tokens[self.at]
        self.at += 1
        if kind == "string":
            return text[1:-1] if text[0] == "`" else re.sub(r"\\(.)", r"\1", text[1:-1])
        if kind == "field":
            return self._field(text, where)
        if text == "(":
            self.depth += 1
            if self.depth > MAX_DEPTH:
                raise self._error("max expression depth exceeded")
            value = self._pipeline()
            self.depth -= 1
            if self._peek() != ")":
                raise self._error("unclosed left paren")
            self.at += 1
            return value
        raise self._error(f'function "{text}" not defined' if kind == "name" else f"unexpected {text!r} in operand")

    def _call(self, name: str, arguments: tuple[Value, ...]) -> Value:
        if name == "join":
            if not arguments or not all(isinstance(argument, str) for argument in arguments):
                raise self._error("error calling join: it takes a separator and strings")
            separator, *parts = (str(argument) for argument in arguments)
            return separator.join(parts)
        if self.payload is not None and name in ("secret", "config", "env"):
            return self._ask(self.payload, name, arguments)
        if name == "index" and len(arguments) == 2 and isinstance(arguments[1], str):
            holder = arguments[0]
            return holder.get(arguments[1], "") if isinstance(holder, Mapping) else ""
        raise self._error(f'function "{name}" not defined')

    def _ask(self, payload: Payload, kind: str, arguments: tuple[Value, ...]) -> str:
        if len(arguments) != 1 or not isinstance(arguments[0], str):
            raise self._error(f"wrong number of args for {kind}: want 1 got {len(arguments)}")
        found = payload.find(kind, arguments[0])
        if found is None:
            raise self._error(f"error calling {kind}: {kind} target {arguments[0]} not found")
        return found

    def _field(self, text: str, where: int) -> Value:
        value: Value = self.tree
        seen: list[str] = []
        for part in text.strip(".").split("."):
            place = f'template: expansion:1:{self.offset + where}: executing "expansion" at <{text}>: '
            if not isinstance(value, Mapping):
                raise BadTemplate(f"{place}can't evaluate field {part} in type string")
            if part not in value:
                if seen == ["Service", "Labels"]:
                    raise BadTemplate(f'{place}map has no entry for key "{part}"')
                raise BadTemplate(f"{place}can't evaluate field {part} in type {_TYPES.get('.'.join(seen), 'string')}")
            value = value[part]
            seen.append(part)
        return value

    def _peek(self) -> str:
        return self.tokens[self.at][1] if self.at < len(self.tokens) else ""

    def _error(self, what: str) -> BadTemplate:
        return BadTemplate(f"template: expansion:1: {what}")
