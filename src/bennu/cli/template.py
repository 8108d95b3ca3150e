"""Go's text templates, the part that `--format` needs.

`Template.render(value)` walks the parsed tree over plain JSON data. A field that is missing is false in a condition and
an error where it would be printed, so that `{{if .State.Health}}…{{end}}` works on containers without a health check.
"""

from collections.abc import Mapping
from typing import Any

from bennu.cli.template_fields import read_field
from bennu.cli.template_functions import FUNCTIONS, Missing, is_true, to_text
from bennu.cli.template_parser import (
    Block,
    Chain,
    Function,
    Literal,
    Node,
    Operand,
    Pipeline,
    TemplateFailure,
    parse,
)


class Template:
    """A parsed template."""

    def __init__(self, source: str) -> None:
        self.nodes = parse(source)

    def render(self, value: Any) -> str:
        out: list[str] = []
        self._walk(self.nodes, value, {"$": value}, out)
        return "".join(out)

    def _walk(self, nodes: list[Node], dot: Any, scope: dict[str, Any], out: list[str]) -> None:
        for node in nodes:
            if isinstance(node, str):
                out.append(node)
            elif isinstance(node, Pipeline):
                value = self._evaluate(node, dot, scope)
                if node.names:
                    scope[node.names[0]] = value
                else:
                    out.append(to_text(value))
            elif node.kind == "range":
                self._range(node, dot, scope, out)
            else:
                value = self._evaluate(node.pipeline, dot, scope)
                inner = {**scope, **dict.fromkeys(node.pipeline.names, value)}
                chosen = node.body if is_true(value) else node.otherwise
                inner_dot = value if node.kind == "with" and is_true(value) else dot
                self._walk(chosen, inner_dot, inner if node.pipeline.names else scope, out)

    def _range(self, node: Block, dot: Any, scope: dict[str, Any], out: list[str]) -> None:
        value = self._evaluate(node.pipeline, dot, scope)
        if isinstance(value, Mapping):
            pairs: list[tuple[Any, Any]] = sorted(value.items())
        elif isinstance(value, int) and not isinstance(value, bool):
            pairs = [(number, number) for number in range(value)]
        elif value is None or isinstance(value, Missing):
            pairs = []
        elif isinstance(value, (list, tuple)):
            pairs = list(enumerate(value))
        else:
            raise TemplateFailure(f"template parsing error: range can't iterate over {to_text(value)}")
        if not pairs:
            self._walk(node.otherwise, dot, scope, out)
        for key, item in pairs:
            names = node.pipeline.names
            inner = {**scope, **dict(zip(names, (key, item) if len(names) == 2 else (item,), strict=False))}
            self._walk(node.body, item, inner, out)

    def _evaluate(self, pipeline: Pipeline, dot: Any, scope: dict[str, Any]) -> Any:
        piped: tuple[Any, ...] = ()
        for words in pipeline.commands:
            piped = (self._command(words, piped, dot, scope),)
        return piped[0]

    def _command(self, words: tuple[Operand, ...], piped: tuple[Any, ...], dot: Any, scope: dict[str, Any]) -> Any:
        head, *rest = words
        arguments = [self._operand(word, dot, scope) for word in rest] + list(piped)
        if isinstance(head, Function):
            return self._call(head.name, arguments)
        value = self._operand(head, dot, scope, call=False)
        if callable(value):
            return value(*arguments)
        if arguments:
            raise TemplateFailure(f"template parsing error: can't give argument to non-function {head}")
        return value

    def _call(self, name: str, arguments: list[Any]) -> Any:
        try:
            return FUNCTIONS[name](*arguments)
        except (TypeError, ValueError, KeyError, IndexError) as error:
            raise TemplateFailure(f"template parsing error: error calling {name}: {error}") from None

    def _operand(self, operand: Operand, dot: Any, scope: dict[str, Any], *, call: bool = True) -> Any:
        if isinstance(operand, Literal):
            return operand.value
        if isinstance(operand, Function):
            return self._call(operand.name, [])
        if isinstance(operand.base, Pipeline):
            value = self._evaluate(operand.base, dot, scope)
        elif operand.base == ".":
            value = dot
        elif operand.base in scope:
            value = scope[operand.base]
        else:
            raise TemplateFailure(f'template parsing error: template: :1: undefined variable "{operand.base}"')
        for name in operand.fields:
            value = self._field(value, name, operand)
        return value() if call and callable(value) else value

    def _field(self, value: Any, name: str, chain: Chain) -> Any:
        where = f'template: :1:{chain.position}: executing "" at <{chain.source}>'
        if isinstance(value, Missing):
            raise TemplateFailure(f"template parsing error: {value.problem}")
        if value is None:
            return Missing(f"{where}: nil pointer evaluating interface {{}}.{name}")
        if not isinstance(value, Mapping):
            raise TemplateFailure(f"template parsing error: {where}: can't evaluate field {name}")
        return read_field(value, name, Missing(f'{where}: map has no entry for key "{name}"'))
