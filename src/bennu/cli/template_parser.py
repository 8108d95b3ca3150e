"""Go's text templates become a tree of small nodes."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from bennu.cli.failure import Failure
from bennu.cli.template_functions import FUNCTIONS

ACTION: Final = re.compile(r"\{\{(- )?(/\*.*?\*/|(?:`[^`]*`|\"(?:\\.|[^\"\\])*\"|.)*?)( -)?\}\}", re.S)
TOKEN: Final = re.compile(
    r"""(?P<space>\s+)|(?P<string>"(?:\\.|[^"\\])*")|(?P<raw>`[^`]*`)|(?P<char>'(?:\\.|[^'\\])')
    |(?P<number>[+-]?(?:0[xX][0-9a-fA-F]+|\d+(?:\.\d+)?))|(?P<variable>\$\w*)|(?P<field>\.\w+)|(?P<dot>\.)
    |(?P<name>\w+)|(?P<mark>:=|=|\||\(|\)|,)""",
    re.X,
)


class TemplateFailure(Failure):
    """The template is wrong, or does not fit the data."""


@dataclass(frozen=True, slots=True)
class Token:
    kind: str
    text: str
    position: int
    joined: bool  # no space before it


# Operands: each is evaluated with the scope, to one value.
@dataclass(frozen=True, slots=True)
class Literal:
    value: Any


@dataclass(frozen=True, slots=True)
class Chain:
    """`.A.B`, `$x.A`, `(pipeline).A`, or the bare dot."""

    base: "str | Pipeline"  # "." , "$name" or a pipeline in parentheses
    fields: tuple[str, ...]
    position: int
    source: str


@dataclass(frozen=True, slots=True)
class Function:
    name: str
    position: int


Operand = Literal | Chain | Function


@dataclass(frozen=True, slots=True)
class Pipeline:
    commands: tuple[tuple[Operand, ...], ...]
    names: tuple[str, ...] = ()  # variables it sets
    declares: bool = False


@dataclass(slots=True)
class Block:
    """if, range or with: `kind`, its pipeline, its body and what else."""

    kind: str
    pipeline: Pipeline
    body: list["Node"] = field(default_factory=list)
    otherwise: list["Node"] = field(default_factory=list)


Node = str | Pipeline | Block


def lex(source: str, offset: int) -> list[Token]:
    tokens, position, joined = [], 0, False
    while position < len(source):
        found = TOKEN.match(source, position)
        if found is None or found.lastgroup is None:
            raise TemplateFailure(f"template parsing error: unexpected {source[position]!r} in {{{{{source}}}}}")
        if found.lastgroup != "space":
            tokens.append(Token(found.lastgroup, found[0], offset + position, joined))
        joined = found.lastgroup != "space"
        position = found.end()
    return tokens


class ActionParser:
    """Reads one pipeline from the tokens of one action."""

    def __init__(self, tokens: list[Token], source: str) -> None:
        self.tokens, self.source, self.at = tokens, source, 0

    def peek(self) -> Token | None:
        return self.tokens[self.at] if self.at < len(self.tokens) else None

    def take(self) -> Token:
        self.at += 1
        return self.tokens[self.at - 1]

    def whole(self) -> Pipeline:
        names = self._assignment()
        declares = bool(names) and self.tokens[self.at - 1].text == ":="
        commands = self._commands()
        if self.at != len(self.tokens) or not commands:
            left = self.tokens[self.at].text if self.at < len(self.tokens) else "end of action"
            raise TemplateFailure(f"template parsing error: unexpected {left} in {{{{{self.source}}}}}")
        return Pipeline(commands, names, declares)

    def _assignment(self) -> tuple[str, ...]:
        kinds = [token.text if token.kind == "mark" else token.kind for token in self.tokens[:4]]
        if kinds[:2] in (["variable", ":="], ["variable", "="]):
            self.at = 2
            return (self.tokens[0].text,)
        if kinds[:4] == ["variable", ",", "variable", ":="]:
            self.at = 4
            return self.tokens[0].text, self.tokens[2].text
        return ()

    def _commands(self) -> tuple[tuple[Operand, ...], ...]:
        commands: list[tuple[Operand, ...]] = []
        words: list[Operand] = []
        while (token := self.peek()) is not None and token.text != ")":
            if token.text == "|" and token.kind == "mark":
                self.take()
                commands.append(tuple(words))
                words = []
            else:
                words.append(self._operand())
        commands.append(tuple(words))
        if not all(commands):
            raise TemplateFailure(f"template parsing error: missing value for command in {{{{{self.source}}}}}")
        return tuple(commands)

    def _operand(self) -> Operand:
        token = self.take()
        if token.kind in ("string", "raw", "char", "number"):
            return Literal(read_literal(token))
        if token.kind == "name":
            if token.text not in FUNCTIONS and token.text not in LITERAL_NAMES:
                raise TemplateFailure(f'template parsing error: template: :1: function "{token.text}" not defined')
            return LITERAL_NAMES.get(token.text) or Function(token.text, token.position)
        if token.kind == "dot":
            return Chain(".", (), token.position, ".")
        if token.kind == "field":
            return self._fields(".", [token.text[1:]], token)
        if token.kind == "variable":
            return self._fields(token.text, [], token)
        if token.text == "(":
            inner = Pipeline(self._commands())
            if self.peek() is None:
                raise TemplateFailure("template parsing error: unclosed left paren")
            self.take()
            return self._fields(inner, [], token)
        raise TemplateFailure(f'template parsing error: unexpected "{token.text}" in operand')

    def _fields(self, base: str | Pipeline, names: list[str], first: Token) -> Chain:
        while (token := self.peek()) is not None and token.kind == "field" and token.joined:
            names.append(self.take().text[1:])
        source = (base if isinstance(base, str) and base != "." else "") + "".join("." + name for name in names)
        return Chain(base, tuple(names), first.position, source)


LITERAL_NAMES: Final = {"true": Literal(True), "false": Literal(False), "nil": Literal(None)}


def read_literal(token: Token) -> Any:
    if token.kind == "raw":
        return token.text[1:-1]
    if token.kind == "number":
        return float(token.text) if "." in token.text else int(token.text, 0)
    text = token.text[1:-1].encode("latin-1", "backslashreplace").decode("unicode_escape")
    return ord(text) if token.kind == "char" else text


def split_source(source: str) -> Iterator[str | tuple[str, int]]:
    """Text, and (action, position); white space next to `{{-` and `-}}` is dropped."""
    position, trim_next = 0, False
    for found in ACTION.finditer(source):
        before = source[position : found.start()]
        before = before.lstrip() if trim_next else before
        yield before.rstrip() if found[1] else before
        if not found[2].startswith("/*"):
            yield found[2].strip(), found.start() + 2
        position, trim_next = found.end(), bool(found[3])
    rest = source[position:]
    if "{{" in rest:
        raise TemplateFailure("template parsing error: template: :1: unclosed action")
    yield rest.lstrip() if trim_next else rest


def parse(source: str) -> list[Node]:
    root: list[Node] = []
    stack: list[tuple[Block, int]] = []  # open blocks; how many of them one {{end}} closes
    here = root
    for part in split_source(source):
        if isinstance(part, str):
            here.append(part)
            continue
        action, position = part
        word, _, rest = action.partition(" ")
        if word in ("if", "range", "with"):
            block = Block(word, ActionParser(lex(rest, position), rest).whole())
            here.append(block)
            stack.append((block, 1))
            here = block.body
        elif word == "else":
            here = parse_else(stack, rest.strip(), position)
        elif word == "end":
            if not stack:
                raise TemplateFailure("template parsing error: template: :1: unexpected {{end}}")
            for _ in range(stack[-1][1]):
                stack.pop()
            here = (stack[-1][0].otherwise if in_else(stack[-1][0]) else stack[-1][0].body) if stack else root
        elif action:
            here.append(ActionParser(lex(action, position), action).whole())
        else:
            raise TemplateFailure("template parsing error: template: :1: missing value for command")
    if stack:
        raise TemplateFailure("template parsing error: template: :1: unexpected EOF")
    return root


def in_else(block: Block) -> bool:
    return bool(block.otherwise)


def parse_else(stack: list[tuple[Block, int]], rest: str, position: int) -> list[Node]:
    if not stack:
        raise TemplateFailure("template parsing error: template: :1: unexpected {{else}}")
    block, depth = stack[-1]
    block.otherwise.append("")  # marks that the else has begun
    word, _, condition = rest.partition(" ")
    if word not in ("if", "with"):
        return block.otherwise
    inner = Block(word, ActionParser(lex(condition, position), condition).whole())
    block.otherwise.append(inner)
    stack.append((inner, depth + 1))
    return inner.body
