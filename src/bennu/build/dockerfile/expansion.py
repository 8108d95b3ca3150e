"""Puts variables into words: `$V`, `${V:-x}`, `${V%.*}`, `${V//a/b}` …; quotes and escapes are a shell's. Pure.

Pinned by `test_expansion.py` to what BuildKit answers.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from bennu.build.dockerfile.failure import DockerfileError
from bennu.build.dockerfile.patterns import match_end, parse_pattern, replace
from bennu.go.printing import quote

# What is a blank to Go.
SPACES: Final = "\t\n\v\f\r \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000" + "".join(map(chr, range(0x2000, 0x200B)))
SPECIAL: Final = "@*#?-$!0"  # a shell's parameters of one letter
# Nothing can stand for the end: no text has it.
END: Final = ""
# Runs of letters that mean nothing: whatever ends a run may mean something.
PLAIN: Final = re.compile(r"[^$<'\"\\`}/]+")
MAX_DEPTH: Final = 64
MAX_INSERTED: Final = 1 << 20  # letters that the values put in may have together; no process takes a longer word


@dataclass(frozen=True, slots=True)
class Expanded:
    """A word with its variables put in, and which of them were there."""

    text: str
    used: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Style:
    """How to read. With `keep_unset` a variable that is not there stays as it is written."""

    escape: str = "\\"
    raw_quotes: bool = False  # quotes stay
    raw_escapes: bool = False  # escapes stay
    no_quotes: bool = False  # quotes are letters like others: what stands in a heredoc
    keep_unset: bool = False


PLAIN_STYLE: Final = Style()
NO_VARIABLES: Final[Mapping[str, str]] = {}


def expand(text: str, env: Mapping[str, str], style: Style = PLAIN_STYLE) -> Expanded:
    """Expand one word. Raises: DockerfileError that quotes it."""
    reader = _WordReader(text, env, style)
    return Expanded(reader.read_all(), tuple(reader.used), tuple(reader.missing))


def split(text: str, style: Style, env: Mapping[str, str] = NO_VARIABLES) -> list[str]:
    """Split a line at blanks outside of quotes, variables put in before. Raises: DockerfileError."""
    reader = _WordReader(text, env, style)
    reader.words = _Words()
    reader.read_all()
    return reader.words.all()


@dataclass(slots=True)
class _Words:
    """The words of a line, as they come."""

    done: list[str] = field(default_factory=list)
    parts: list[str] = field(default_factory=list)

    def add(self, text: str) -> None:
        """Add text in which blanks end a word."""
        for letter in text:
            if letter not in SPACES:
                self.parts.append(letter)
            elif any(self.parts):
                self.done.append("".join(self.parts))
                self.parts.clear()

    def add_raw(self, text: str) -> None:
        self.parts.append(text)

    def all(self) -> list[str]:
        return [*self.done, "".join(self.parts)] if any(self.parts) else self.done


@dataclass(slots=True)
class _WordReader:
    text: str
    env: Mapping[str, str]
    style: Style
    position: int = 0
    depth: int = 0
    inserted: int = 0
    words: _Words | None = None
    used: dict[str, None] = field(default_factory=dict)
    missing: dict[str, None] = field(default_factory=dict)

    def read_all(self) -> str:
        try:
            return self.read_until(END, self.style.raw_escapes)
        except DockerfileError as error:
            raise DockerfileError(f"failed to process {quote(self.text)}: {error}") from None

    @property
    def next(self) -> str:
        """The letter that comes; END after the last."""
        return self.text[self.position : self.position + 1]

    def take(self) -> str:
        letter = self.next
        self.position += 1
        return letter

    def read_until(self, stop: str, raw_escapes: bool) -> str:
        """Read to the end, or to a letter that stands outside of quotes and is taken too."""
        out: list[str] = []
        words = self.words if stop == END else None
        while letter := self.next:
            if letter == stop:
                self.position += 1
                return "".join(out)
            if letter in "$<" or (letter in "'\"" and not self.style.no_quotes):
                piece = self.read_marked(letter, raw_escapes)
                out.append(piece)
                if words:
                    words.add(piece) if letter == "$" else words.add_raw(piece)
            elif letter == self.style.escape:
                self.position += 1
                piece = (letter if raw_escapes else "") + self.take()
                out.append(piece)
                if words and piece:
                    words.add_raw(piece)
            else:
                piece = found[0] if (found := PLAIN.match(self.text, self.position)) else letter
                self.position += len(piece)
                out.append(piece)
                if words:
                    words.add(piece)
        if stop != END:
            raise DockerfileError(f"unexpected end of statement while looking for matching {stop}")
        return "".join(out)

    def read_marked(self, letter: str, raw_escapes: bool) -> str:
        match letter:
            case "$":
                return self.read_dollar()
            case "<":
                return self.read_angle()
            case "'":
                return self.read_single_quotes()
            case _:
                return self.read_double_quotes(raw_escapes)

    def read_angle(self) -> str:
        """Keep the blanks between `<<` and a heredoc's name: they do not part words."""
        begin = self.position
        self.position += 2 if self.text.startswith("<<", begin) else 1
        while self.position - begin > 1 and self.next and self.next in "\t\r ":
            self.position += 1
        return self.text[begin : self.position]

    def read_single_quotes(self) -> str:
        begin = self.position
        end = self.text.find("'", begin + 1)
        if end < 0:
            self.position = len(self.text)
            raise DockerfileError("unexpected end of statement while looking for matching single-quote")
        self.position = end + 1
        return self.text[begin : end + 1] if self.style.raw_quotes else self.text[begin + 1 : end]

    def read_double_quotes(self, raw_escapes: bool) -> str:
        mark = '"' if self.style.raw_quotes else ""
        out = [mark]
        self.position += 1
        while letter := self.next:
            if letter == '"':
                self.position += 1
                return "".join([*out, mark])
            if letter == "$":
                out.append(self.read_dollar())
            elif letter == self.style.escape:
                self.position += 1
                out.append(letter if raw_escapes else "")
                if self.next:  # an escape keeps its meaning before these alone, and is a letter elsewhere
                    out.append(self.take() if self.next in ('"', "$", self.style.escape) else letter)
            else:
                piece = found[0] if (found := PLAIN.match(self.text, self.position)) else letter
                self.position += len(piece)
                out.append(piece)
        raise DockerfileError("unexpected end of statement while looking for matching double-quote")

    def read_dollar(self) -> str:
        self.position += 1
        if self.next != "{":
            name = self.read_name()
            if not name:
                return "$"
            value = self.value_of(name)
            return f"${name}" if value is None and self.style.keep_unset else value or ""
        self.position += 1
        if self.next == END:
            raise DockerfileError("syntax error: missing '}'")
        if self.next in "{}:":
            raise DockerfileError("syntax error: bad substitution")
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise DockerfileError("substitutions are nested too deeply")
        value = self.read_braces(self.read_name())
        self.depth -= 1
        return value

    def read_braces(self, name: str) -> str:
        """Read what follows the name in `${…}`."""
        sign = self.take()
        if sign == "}":
            value = self.value_of(name)
            return f"${{{name}}}" if value is None and self.style.keep_unset else value or ""
        if sign == "/":
            return self.read_replacement(name)
        signs = sign
        if sign == ":":
            sign = self.take()
            signs += sign or "�"
        elif sign == END or sign not in "+-?#%":
            raise DockerfileError(f"unsupported modifier ({sign or '�'}) in substitution")
        trims = sign != END and sign in "#%"
        if trims and signs[0] == ":":
            raise DockerfileError(f"unsupported modifier ({signs}) in substitution")
        word = self.read_operand("}", raw_escapes=trims)
        value = self.value_of(name)
        if value is None and self.style.keep_unset:
            return f"${{{name}{signs}{word}}}"
        if trims:
            return _trim(value or "", word, sign)
        is_set = value is not None and not (signs[0] == ":" and value == "")
        match sign:
            case "-":
                return (value or "") if is_set else word
            case "+":
                return word if is_set else ""
            case "?":
                if not is_set:
                    why = "unset" if value is None else "empty"
                    raise DockerfileError(f"{name}: {word or f'is not allowed to be {why}'}")
                return value or ""
        raise DockerfileError(f"unsupported modifier ({signs}) in substitution")

    def read_replacement(self, name: str) -> str:
        """Read `/PATTERN/TEXT}` or `//PATTERN/TEXT}`; its first slash is read."""
        every = self.next == "/"
        self.position += every
        pattern = self.read_operand("/", raw_escapes=True)
        by = self.read_operand("}", raw_escapes=True)
        value = self.value_of(name)
        if value is None and self.style.keep_unset:
            return f"${{{name}/{pattern}/{by}}}"
        out = replace(parse_pattern(pattern), value or "", by, every=every)
        self.count(len(out))
        return out

    def read_operand(self, stop: str, *, raw_escapes: bool) -> str:
        try:
            return self.read_until(stop, raw_escapes)
        except DockerfileError:
            if self.next == END:
                missing = "'/' in ${}" if stop == "/" else "'}'"
                raise DockerfileError(f"syntax error: missing {missing}") from None
            raise

    def read_name(self) -> str:
        begin = self.position
        if self.next and (self.next.isdecimal() or self.next in SPECIAL):
            digits = self.next.isdecimal()
            self.position += 1
            while digits and self.next.isdecimal():
                self.position += 1
        else:
            while self.next and (self.next.isalpha() or self.next.isdecimal() or self.next == "_"):
                self.position += 1
        return self.text[begin : self.position]

    def value_of(self, name: str) -> str | None:
        value = self.env.get(name)
        (self.missing if value is None else self.used)[name] = None
        self.count(len(value or ""))
        return value

    def count(self, letters: int) -> None:
        self.inserted += letters
        if self.inserted > MAX_INSERTED:
            raise DockerfileError(f"the values of its variables are longer than {MAX_INSERTED} letters")


def _trim(value: str, word: str, sign: str) -> str:
    longest = word.startswith(sign)
    pattern = parse_pattern(word[1:] if longest else word)
    if sign == "#":
        end = match_end(pattern, value, longest=longest)
        return value[end or 0 :]
    end = match_end(pattern.reversed(), value[::-1], longest=longest)
    return value[: len(value) - (end or 0)]
