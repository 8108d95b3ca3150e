"""A part of Go's text/template: text, fields, literals, pipelines and functions; no variables and no control. Pure.

    action    = "{{" ["-"] pipeline ["-"] "}}"        "-" eats the white space on that side
    pipeline  = command { "|" command }               the value of one is the last argument of the next
    command   = field | literal | function arg arg… | "index" map key
    arg       = field | literal | "(" pipeline ")"

A missing field or key is an error, in Go's words, because that is what people have learnt to read.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias

Value: TypeAlias = "str | Mapping[str, str] | Struct"
Function: TypeAlias = Callable[[Sequence[Value]], str]

MAX_DEPTH: Final = 100  # of parentheses within each other
_TOKEN: Final = re.compile(r'\s*(?:("(?:\\.|[^"\\])*"|`[^`]*`)|(\.[\w.]*)|([A-Za-z_]\w*)|([()|]))')


class TemplateError(ValueError):
    """A template that cannot be read or expanded. The message is Go's, without what it was expanded for."""


@dataclass(frozen=True, slots=True)
class Struct:
    """A Go struct; `type` is what errors call it, `fields` are in their order."""

    type: str
    fields: Mapping[str, Value]


def expand_template(template: str, root: Struct, functions: Mapping[str, Function], name: str = "expansion") -> str:
    """Replace every action by its value, as Go writes it. A function's ValueError is told in Go's words.

    Raises: TemplateError, which calls the template by `name`.
    """
    out: list[str] = []
    position = 0
    trim = False
    while (start := template.find("{{", position)) >= 0:
        end = template.find("}}", start + 2)
        if end < 0:
            raise TemplateError(f"template: {name}:1: unclosed action")
        before, source, after, offset = _read_action(template, start + 2, end)
        text = template[position:start]
        text = text.lstrip() if trim else text
        out.append(text.rstrip() if before else text)
        out.append(_Expansion(offset, source, root, functions, name).run())
        trim = after
        position = end + 2
    rest = template[position:]
    out.append(rest.lstrip() if trim else rest)
    return "".join(out)


def _read_action(template: str, start: int, end: int) -> tuple[bool, str, bool, int]:
    """Answer whether white space goes before it, its pipeline, whether it goes after it, and the pipeline's offset."""
    before = template[start : start + 1] == "-" and template[start + 1 : min(start + 2, end)].isspace()
    start += 2 if before else 0
    after = end - start >= 2 and template[end - 1] == "-" and template[end - 2].isspace()
    return before, template[start : end - 2 if after else end], after, start


def _format(value: Value) -> str:
    """Write a value as fmt.Print does: maps with sorted keys, structs by their fields alone."""
    if isinstance(value, Struct):
        return "{" + " ".join(map(_format, value.fields.values())) + "}"
    if isinstance(value, Mapping):
        return "map[" + " ".join(f"{key}:{value[key]}" for key in sorted(value)) + "]"
    return value


@dataclass(slots=True)
class _Expansion:
    """One action: a small recursive descent over its tokens."""

    offset: int
    source: str
    root: Struct
    functions: Mapping[str, Function]
    name: str
    tokens: list[tuple[str, str, int]] = field(default_factory=list)
    at: int = 0
    depth: int = 0

    def run(self) -> str:
        self._read_tokens()
        value = self._pipeline()
        if self.at < len(self.tokens):
            raise self._error(f"unexpected {self.tokens[self.at][1]!r} in action")
        return _format(value)

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
        if function := self.functions.get(name):
            try:
                return function(arguments)
            except ValueError as error:
                raise self._error(str(error)) from error
        if name == "index" and len(arguments) == 2 and isinstance(arguments[1], str):
            holder = arguments[0]
            return holder.get(arguments[1], "") if isinstance(holder, Mapping) else ""
        raise self._error(f'function "{name}" not defined')

    def _field(self, text: str, where: int) -> Value:
        value: Value = self.root
        place = f'template: {self.name}:1:{self.offset + where}: executing "{self.name}" at <{text}>: '
        for part in text.strip(".").split("."):
            if isinstance(value, Struct):
                if part not in value.fields:
                    raise TemplateError(f"{place}can't evaluate field {part} in type {value.type}")
                value = value.fields[part]
            elif isinstance(value, Mapping):
                if part not in value:
                    raise TemplateError(f'{place}map has no entry for key "{part}"')
                value = value[part]
            else:
                raise TemplateError(f"{place}can't evaluate field {part} in type string")
        return value

    def _peek(self) -> str:
        return self.tokens[self.at][1] if self.at < len(self.tokens) else ""

    def _error(self, what: str) -> TemplateError:
        return TemplateError(f"template: {self.name}:1: {what}")
