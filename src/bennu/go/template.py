"""Go's text/template: a template and the values it may name, made a text. Pure.

A missing field or key is an error, in Go's words, because that is what people have learnt to read. A template comes to
an end: its steps, its depth and its output are bounded, for all templates together that share an `Expense`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from bennu.go.printing import Struct, Value, format_value, type_of
from bennu.go.template_functions import BUILT_IN, SHORT, Function, is_true, wrong_count
from bennu.go.template_syntax import Operand, Parser, Piece, Pipeline, TemplateError

MAX_STEPS: Final = 100_000
MAX_OUTPUT: Final = 1 << 20
MAX_MADE: Final = 16 << 20  # characters that functions have answered, whatever becomes of them
MAX_CALLS: Final = 50  # of templates within each other


class _Break(Exception):
    """`{{break}}`."""


class _Continue(Exception):
    """`{{continue}}`."""


@dataclass(slots=True)
class Expense:
    """What templates have taken so far of what is bounded."""

    steps: int = 0
    written: int = 0
    made: int = 0


def expand_template(
    template: str,
    root: Struct,
    functions: Mapping[str, Function],
    name: str = "expansion",
    expense: Expense | None = None,
) -> str:
    """Replace every action by its value, as Go writes it. A function's ValueError is told in Go's words.

    `expense`: of templates that were expanded for the same thing before; this one's is added.

    Raises: TemplateError, which calls the template by `name`.
    """
    parser = Parser(template, {*BUILT_IN, *SHORT, *functions}, name)
    nodes = parser.parse()
    expansion = _Expansion(template, functions, parser.templates, [("$", root)], name, expense or Expense())
    expansion.walk(nodes, root)
    return "".join(expansion.out)


@dataclass(slots=True)
class _Expansion:
    """One run of a template."""

    source: str
    functions: Mapping[str, Function]
    templates: Mapping[str, Sequence[Piece]]
    variables: list[tuple[str, Value]]
    name: str
    expense: Expense
    out: list[str] = field(default_factory=list)
    calls: int = 0

    def walk(self, nodes: Sequence[Piece], dot: Value) -> None:
        for node in nodes:
            self._step()
            match node.kind:
                case "text":
                    self._write(node.text)
                case "action" if node.pipeline is not None:
                    value = self._evaluate(node.pipeline, dot)
                    if not node.pipeline.names:
                        self._write("<no value>" if value is None else format_value(value))
                case "if" | "with":
                    self._choose(node, dot)
                case "range":
                    self._range(node, dot)
                case "template":
                    self._include(node, dot)
                case "break":
                    raise _Break
                case "continue":
                    raise _Continue

    def _choose(self, node: Piece, dot: Value) -> None:
        known = len(self.variables)
        assert node.pipeline is not None
        value = self._evaluate(node.pipeline, dot)
        if is_true(value):
            self.walk(node.body, value if node.kind == "with" else dot)
        else:
            self.walk(node.otherwise, dot)
        del self.variables[known:]

    def _range(self, node: Piece, dot: Value) -> None:
        known = len(self.variables)
        assert node.pipeline is not None
        value = self._evaluate(node.pipeline, dot)
        pairs = self._pairs(value, node.pipeline)
        del self.variables[known:]
        for key, item in pairs:
            self._step()
            named = (item,) if len(node.pipeline.names) == 1 else (key, item)
            for name, one in zip(node.pipeline.names, named, strict=False):
                if node.pipeline.assigns:
                    self._assign(name, one)
                else:
                    self.variables.append((name, one))
            try:
                self.walk(node.body, item)
            except _Break:
                break
            except _Continue:
                continue
            finally:
                del self.variables[known:]
        if not pairs:
            self.walk(node.otherwise, dot)

    def _pairs(self, value: Value, pipeline: Pipeline) -> list[tuple[Value, Value]]:
        operand = pipeline.commands[0][0]
        match value:
            case None:
                return []
            case Mapping():
                return [(key, value[key]) for key in sorted(value)]
            case list() | tuple():
                return list(enumerate(value))
            case int() if not isinstance(value, bool):
                if len(pipeline.names) > 1:
                    raise self._error(operand, f"can't use {value} to iterate over more than one variable")
                return [(number, number) for number in range(min(value, MAX_STEPS))]
            case _:
                raise self._error(operand, f"range can't iterate over {format_value(value)}")

    def _include(self, node: Piece, dot: Value) -> None:
        if node.text not in self.templates:
            called = f'{{{{template "{node.text}"}}}}'
            raise self._error(Operand("template", called, node.at), f'template "{node.text}" not defined')
        self.calls += 1
        if self.calls > MAX_CALLS:
            raise TemplateError(f"template: {self._place(node.at)}: exceeded maximum template depth ({MAX_CALLS})")
        value = self._evaluate(node.pipeline, dot) if node.pipeline is not None else None
        kept, self.variables = self.variables, [("$", value)]
        self.walk(self.templates[node.text], value)
        self.variables = kept
        self.calls -= 1

    # --- values

    def _evaluate(self, pipeline: Pipeline, dot: Value) -> Value:
        final: tuple[Value, ...] = ()
        for command in pipeline.commands:
            final = (self._command(command, dot, final),)
        for name in pipeline.names[-1:]:
            if pipeline.assigns:
                self._assign(name, final[0])
            else:
                self.variables.append((name, final[0]))
        return final[0]

    def _command(self, command: Sequence[Operand], dot: Value, piped: tuple[Value, ...]) -> Value:
        self._step()
        first, *others = command
        if first.kind == "function":
            return self._call(first, others, dot, piped, " ".join(operand.text for operand in command))
        if others or piped:
            raise self._error(first, f"can't give argument to non-function {first.text}")
        if first.kind == "literal" and first.value is None:
            raise self._error(first, "nil is not a command")
        return self._value(first, dot)

    def _value(self, operand: Operand, dot: Value) -> Value:
        match operand.kind:
            case "literal":
                return operand.value
            case "dot":
                value = dot
            case "variable":
                value = next(value for name, value in reversed(self.variables) if name == operand.value)
            case "function":
                return self._fields(operand, self._call(operand, (), dot, (), operand.text))
            case _:
                assert operand.inner is not None
                value = self._evaluate(operand.inner, dot)
        return self._fields(operand, value)

    def _fields(self, operand: Operand, value: Value) -> Value:
        for part in operand.fields:
            match value:
                case Struct():
                    if part not in value.fields:
                        raise self._error(operand, f"can't evaluate field {part} in type {value.type}")
                    value = value.fields[part]
                case Mapping():
                    if part not in value:
                        raise self._error(operand, f'map has no entry for key "{part}"')
                    value = value[part]
                case None:
                    raise self._error(operand, f"nil data; no entry for key {part!r}".replace("'", '"'))
                case _:
                    raise self._error(operand, f"can't evaluate field {part} in type {type_of(value)}")
        return value

    def _call(
        self, function: Operand, others: Sequence[Operand], dot: Value, piped: tuple[Value, ...], text: str
    ) -> Value:
        name = str(function.value)
        own = self.functions.get(name)
        given = len(others) + len(piped)
        if own is None and (words := wrong_count(name, given)):
            raise self._error(function, words)
        if own is None and name in SHORT:
            return self._short(name, others, dot, piped)
        arguments = [*(self._value(operand, dot) for operand in others), *piped]
        try:
            value = own(arguments) if own is not None else BUILT_IN[name][2](arguments)
        except ValueError as error:
            words = str(error) if own is not None else f"error calling {name}: {error}"
            raise self._error(replace(function, text=text), words) from None
        if isinstance(value, str):
            self.expense.made += len(value)
            if len(value) > MAX_OUTPUT or self.expense.made > MAX_MADE:
                raise self._error(function, f"it gives more than {MAX_OUTPUT} characters")
        return value

    def _short(self, name: str, others: Sequence[Operand], dot: Value, piped: tuple[Value, ...]) -> Value:
        """Evaluate `and` or `or` as far as it takes."""
        value: Value = None
        for operand in others:
            value = self._value(operand, dot)
            if is_true(value) == (name == "or"):
                return value
        return piped[0] if piped else value

    def _assign(self, name: str, value: Value) -> None:
        at = next(at for at in reversed(range(len(self.variables))) if self.variables[at][0] == name)
        self.variables[at] = (name, value)

    # --- bounds and errors

    def _write(self, text: str) -> None:
        self.out.append(text)
        self.expense.written += len(text)
        if self.expense.written > MAX_OUTPUT:
            raise TemplateError(f"template: {self.name}: it gives more than {MAX_OUTPUT} characters")

    def _step(self) -> None:
        self.expense.steps += 1
        if self.expense.steps > MAX_STEPS:
            raise TemplateError(f"template: {self.name}: it takes more than {MAX_STEPS} steps")

    def _error(self, operand: Operand, what: str) -> TemplateError:
        return TemplateError(
            f'template: {self._place(operand.at)}: executing "{self.name}" at <{operand.text}>: {what}'
        )

    def _place(self, at: int) -> str:
        line = self.source.count("\n", 0, at) + 1
        return f"{self.name}:{line}:{at - (self.source.rfind(chr(10), 0, at) + 1)}"
