"""The syntax of Go's text/template: a template as nodes. Pure.

text, {{pipeline}}, {{/* comment */}}, {{$x := pipeline}}, {{$x = pipeline}}, {{break}}, {{continue}}
{{if}} {{with}} {{range}} … {{else}} {{else if}} {{else with}} … {{end}}
{{define "name"}} … {{end}}, {{block "name" pipeline}} … {{end}}, {{template "name" pipeline}}
pipeline = command { "|" command }; command = operand operand…; a "-" inside the braces eats white space
"""

from __future__ import annotations

import re
from collections.abc import Container
from dataclasses import dataclass, field
from typing import Final

from bennu.go.printing import quote

MAX_DEPTH: Final = 100  # of parentheses, and of blocks, within each other
_ESCAPES: Final = {"n": "\n", "t": "\t", "r": "\r", "a": "\a", "b": "\b", "f": "\f", "v": "\v"}
_TOKEN: Final = re.compile(
    r"""(?P<space>\s+)|(?P<string>"(?:\\.|[^"\\\n])*"|`[^`]*`)|(?P<char>'(?:\\.|[^'\\\n])')"""
    r"""|(?P<number>[+-]?(?:0[xX][0-9a-fA-F]+|\d+\.?\d*(?:[eE][+-]?\d+)?|\.\d+))"""
    r"""|(?P<field>\.[A-Za-z_]\w*)|(?P<dot>\.)|(?P<variable>\$\w*)|(?P<name>[A-Za-z_]\w*)|(?P<sign>:=|=|[|(),])"""
)
_END: Final = re.compile(r"(\s+-)?}}")
_COMMENT: Final = re.compile(r"\s*/\*.*?\*/(\s+-)?}}", re.DOTALL)


class TemplateError(ValueError):
    """A template that cannot be read or expanded. The message is Go's, without what it was expanded for."""


@dataclass(frozen=True, slots=True)
class Token:
    kind: str
    text: str
    at: int  # offset in the whole template


@dataclass(frozen=True, slots=True)
class Operand:
    """A literal, a variable, `.`, a function, or a pipeline in parentheses; then the fields asked of it.

    `kind` is literal, variable, dot, function or pipeline. `text` is as it was written.
    """

    kind: str
    text: str
    at: int
    value: str | int | float | bool | None = None
    inner: Pipeline | None = None
    fields: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Pipeline:
    """Commands of operands. `names` are declared (or, if `assigns`, set) to its value."""

    commands: tuple[tuple[Operand, ...], ...]
    names: tuple[str, ...] = ()
    assigns: bool = False


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of a template. `kind` is text, action, if, with, range, template, break or continue."""

    kind: str
    at: int
    text: str = ""  # of a text; of a template its name
    pipeline: Pipeline | None = None
    body: tuple[Piece, ...] = ()
    otherwise: tuple[Piece, ...] = ()


@dataclass(slots=True)
class Parser:
    """One template, read from the left to the right. `functions` are the names that may be called."""

    source: str
    functions: Container[str]
    name: str = "expansion"  # what errors call the template
    templates: dict[str, tuple[Piece, ...]] = field(default_factory=dict)
    pieces: list[tuple[str, list[Token], str, int]] = field(default_factory=list)  # text, action, its text, offset
    at: int = 0
    tokens: list[Token] = field(default_factory=list)  # of the action being read
    position: int = 0  # among them
    variables: list[str] = field(default_factory=lambda: ["$"])
    depth: int = 0
    loops: int = 0
    clause: str = "command"  # what a pipeline is wanted for

    def parse(self) -> tuple[Piece, ...]:
        """Parse the whole template; the templates that it defines are in `templates`. Raises: TemplateError."""
        self._split()
        nodes, ended_by = self._list()
        if ended_by:
            raise self.error(f"unexpected {{{{{ended_by}}}}}")
        return nodes

    def error(self, what: str, at: int | None = None) -> TemplateError:
        where = at if at is not None else self.pieces[min(self.at, len(self.pieces)) - 1][3] if self.pieces else 0
        return TemplateError(f"template: {self.name}:{self.source.count(chr(10), 0, where) + 1}: {what}")

    # --- text and actions

    def _split(self) -> None:
        position, trims = 0, False
        while (start := self.source.find("{{", position)) >= 0:
            text = self.source[position:start]
            begin = start + 2
            if self.source[begin : begin + 1] == "-" and self.source[begin + 1 : begin + 2].isspace():
                text, begin = text.rstrip(), begin + 1
            tokens, end, after = self._action(begin)
            self.pieces.append((text.lstrip() if trims else text, tokens, "", start))
            position, trims = end, after
        rest = self.source[position:]
        self.pieces.append((rest.lstrip() if trims else rest, [], "end of input", len(self.source)))

    def _action(self, begin: int) -> tuple[list[Token], int, bool]:
        """Read an action's tokens; answer where it ends, and whether white space after it goes."""
        comment = _COMMENT.match(self.source, begin)
        if comment:
            return [Token("comment", "", begin)], comment.end(), bool(comment[1])
        tokens: list[Token] = []
        at = begin
        while True:
            if end := _END.match(self.source, at):
                return tokens, end.end(), bool(end[1])
            match = _TOKEN.match(self.source, at)
            if match is None:
                raise self._rejected(at)
            at = match.end()
            if match.lastgroup != "space":
                tokens.append(Token(match.lastgroup or "", match[0], match.start()))
            elif tokens:
                tokens.append(Token("space", " ", match.start()))

    def _rejected(self, at: int) -> TemplateError:
        """Make the error for what begins no token."""
        found = self.source[at : at + 1]
        kinds = {'"': "quoted string", "'": "character constant", "`": "raw quoted string"}
        if found in kinds:
            return self.error(f"unterminated {kinds[found]}", at)
        if not found or "}}" not in self.source[at:]:
            return self.error("unclosed action", at)
        return self.error(f"unexpected {quote(found)} in command", at)

    # --- nodes

    def _list(self) -> tuple[tuple[Piece, ...], str]:
        """Read nodes up to the end, an `{{end}}` or an `{{else}}`; answer which."""
        nodes: list[Piece] = []
        while self.at < len(self.pieces):
            text, self.tokens, what, at = self.pieces[self.at]
            self.at, self.position = self.at + 1, 0
            if text:
                nodes.append(Piece("text", at, text))
            if what or self._peek().kind == "comment":
                continue
            word = self._peek().text if self._peek().kind == "name" else ""
            if word in ("end", "else"):
                self._next()
                return tuple(nodes), word
            node = self._statement(word, at)
            if node is not None:
                nodes.append(node)
        return tuple(nodes), ""

    def _statement(self, word: str, at: int) -> Piece | None:
        if word in ("if", "with", "range"):
            self._next()
            return self._control(word, at)
        if word in ("break", "continue"):
            if not self.loops:
                raise self.error(f"{{{{{word}}}}} outside {{{{range}}}}", at)
            self._next()
            self._close("action")
            return Piece(word, at)
        if word in ("define", "block", "template"):
            self._next()
            return self._template(word, at)
        pipeline = self._pipeline()
        self._close("action")
        return Piece("action", at, pipeline=pipeline)

    def _control(self, word: str, at: int) -> Piece:
        known = len(self.variables)
        self.clause = word
        pipeline = self._pipeline(is_range=word == "range")
        self.clause = "command"
        self._close(word)
        self.loops += word == "range"
        body, ended_by = self._block(word, at)
        self.loops -= word == "range"
        otherwise: tuple[Piece, ...] = ()
        if ended_by == "else":
            following = self._peek().text
            if following == word and word in ("if", "with"):
                self._next()
                otherwise = (self._control(word, at),)
            else:
                self._close("else")
                otherwise, ended_by = self._block(word, at)
                if ended_by == "else":
                    raise self.error("expected end; found {{else}}", at)
                self._close("end")
        else:
            self._close("end")
        del self.variables[known:]
        return Piece(word, at, pipeline=pipeline, body=body, otherwise=otherwise)

    def _block(self, word: str, at: int) -> tuple[tuple[Piece, ...], str]:
        self._deeper()
        known = len(self.variables)
        body, ended_by = self._list()
        if not ended_by:
            raise self.error("unexpected EOF", at)
        del self.variables[known:]
        self.depth -= 1
        return body, ended_by

    def _template(self, word: str, at: int) -> Piece | None:
        name = self._next()
        if name.kind != "string":
            raise self.error(f"unexpected {quote(name.text)} in {word} clause", at)
        title = str(unquote(name.text))
        pipeline = self._pipeline() if word == "block" or self._peek().kind != "end" else None
        self._close(f"{word} clause")
        if word == "template":
            return Piece("template", name.at, title, pipeline)
        kept, self.variables, loops, self.loops = self.variables, ["$"], self.loops, 0
        body, ended_by = self._block(word, at)
        if ended_by != "end":
            raise self.error(f"unexpected {{{{{ended_by}}}}} in {word} clause", at)
        self._close("end")
        self.variables, self.loops = kept, loops
        if word == "define" or title not in self.templates:
            self.templates[title] = body
        return Piece("template", name.at, title, pipeline) if word == "block" else None

    # --- pipelines

    def _pipeline(self, *, is_range: bool = False) -> Pipeline:
        names, assigns = self._declaration(is_range)
        commands = [self._command()]
        while self._peek().text == "|" and self._peek().kind == "sign":
            self._next()
            commands.append(self._command())
        for command in commands[1:]:
            if command[0].kind not in ("function", "pipeline", "dot", "variable"):
                raise self.error(
                    f"non executable command in pipeline stage {commands.index(command) + 1}", command[0].at
                )
        if not assigns:
            self.variables += names
        return Pipeline(tuple(commands), names, assigns)

    def _declaration(self, is_range: bool) -> tuple[tuple[str, ...], bool]:
        start, names = self.position, []
        while (token := self._peek()).kind == "variable":
            self._next()
            names.append(token.text)
            sign = self._peek().text
            if sign == "," and is_range and len(names) == 1:
                self._next()
                continue
            if sign in (":=", "="):
                self._next()
                if sign == "=":
                    for name in names:
                        self._check_known(name, token.at)
                return tuple(names), sign == "="
            break
        self.position = start
        return (), False

    def _check_known(self, name: str, at: int) -> None:
        if name not in self.variables:
            raise self.error(f'undefined variable "{name}"', at)

    def _command(self) -> tuple[Operand, ...]:
        operands: list[Operand] = []
        while (token := self._peek()).kind != "end" and token.text not in ("|", ")"):
            operands.append(self._operand())
        if not operands:
            raise self.error(f"missing value for {self.clause}")
        return tuple(operands)

    def _operand(self) -> Operand:
        token = self._next()
        operand = self._term(token)
        fields = list(operand.fields)
        while self.position < len(self.tokens) and self.tokens[self.position].kind == "field":
            if operand.kind == "literal":
                raise self.error(f"unexpected . after term {quote(token.text)}", token.at)
            fields.append(self._next().text[1:])
        follows = self.tokens[self.position] if self.position < len(self.tokens) else None
        if follows is not None and follows.kind != "space" and follows.text not in ("|", ")"):
            raise self.error(f"unexpected {quote(follows.text)} in operand", follows.at)
        text = self.source[token.at : self.tokens[self.position - 1].at + len(self.tokens[self.position - 1].text)]
        return Operand(operand.kind, text, operand.at, operand.value, operand.inner, tuple(fields))

    def _term(self, token: Token) -> Operand:
        match token.kind:
            case "string" | "char":
                return Operand("literal", token.text, token.at, unquote(token.text))
            case "number":
                return Operand("literal", token.text, token.at, _number(token.text))
            case "field":
                return Operand("dot", token.text, token.at, fields=(token.text[1:],))
            case "dot":
                return Operand("dot", ".", token.at)
            case "variable":
                self._check_known(token.text, token.at)
                return Operand("variable", token.text, token.at, token.text)
            case "name" if token.text in ("true", "false", "nil"):
                return Operand("literal", token.text, token.at, {"true": True, "false": False, "nil": None}[token.text])
            case "name":
                if token.text not in self.functions:
                    raise self.error(f'function "{token.text}" not defined', token.at)
                return Operand("function", token.text, token.at, token.text)
            case "sign" if token.text == "(":
                self._deeper()
                inner = self._pipeline()
                if self._next().text != ")":
                    raise self.error("unclosed left paren", token.at)
                self.depth -= 1
                return Operand("pipeline", "(", token.at, inner=inner)
            case _:
                raise self.error(f"unexpected {quote(token.text)} in operand", token.at)

    def _deeper(self) -> None:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise self.error("max expression depth exceeded")

    def _peek(self) -> Token:
        while self.position < len(self.tokens) and self.tokens[self.position].kind == "space":
            self.position += 1
        return self.tokens[self.position] if self.position < len(self.tokens) else Token("end", "", 0)

    def _next(self) -> Token:
        token = self._peek()
        self.position += 1
        return token

    def _close(self, where: str) -> None:
        if (token := self._peek()).kind != "end":
            raise self.error(f"unexpected {quote(token.text)} in {where}", token.at)


def unquote(text: str) -> str | int:
    """Read a Go string, raw string or character constant."""
    if text[0] == "`":
        return text[1:-1]
    plain = re.sub(
        r"\\(x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|[0-7]{3}|.)",
        lambda found: _escaped(found[1]),
        text[1:-1],
    )
    return ord(plain) if text[0] == "'" else plain


def _escaped(code: str) -> str:
    if code[0] in "xuU" and len(code) > 1:
        return chr(min(int(code[1:], 16), 0x10FFFF))
    return chr(int(code, 8)) if len(code) == 3 else _ESCAPES.get(code, code)


def _number(text: str) -> int | float:
    if re.fullmatch(r"[+-]?\d+|[+-]?0[xX][0-9a-fA-F]+", text):
        return int(text, 16 if "x" in text.lower() else 10)
    return float(text)
