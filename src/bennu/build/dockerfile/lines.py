"""Reads the lines of a Dockerfile: directives, continued lines, comments, heredocs. Pure."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from bennu.build.dockerfile.expansion import SPACES, Style, split
from bennu.build.dockerfile.failure import DockerfileError
from bennu.build.dockerfile.words import read_json_words, split_instruction, split_pairs
from bennu.build.graph import Location

MAX_FILE: Final = 4 << 20  # bytes; BuildKit's limit is that of a message, 16 MiB
MAX_LINE: Final = 65535  # bytes of one line as it stands, as in BuildKit
MAX_INSTRUCTIONS: Final = 10_000
BOM: Final = "\ufeff"
DIRECTIVE: Final = re.compile(r"#\s*([a-zA-Z][a-zA-Z0-9]*)\s*=\s*(.+?)\s*\Z")
DIRECTIVES: Final = frozenset(("syntax", "escape", "check"))
CONTINUED: Final = {mark: re.compile(rf"(?:(?<=[^{re.escape(mark)}])|\A){re.escape(mark)}[ \t]*\Z") for mark in "\\`"}
HEREDOC: Final = re.compile(r"(\d*)<<(-?)\s*([^<]*)\Z", re.ASCII)
TAKE_HEREDOCS: Final = frozenset(("add", "copy", "run"))
TAKE_JSON: Final = TAKE_HEREDOCS | {"cmd", "entrypoint", "shell", "volume"}
TABS: Final = re.compile(r"^\t+", re.MULTILINE)
READ_NAME: Final = Style(keep_unset=True)
READ_RAW_NAME: Final = Style(raw_quotes=True, keep_unset=True)
READ_LINE: Final = Style(raw_quotes=True, raw_escapes=True, keep_unset=True)


@dataclass(frozen=True, slots=True)
class Heredoc:
    """A document in the Dockerfile. `expand`: variables in it are put in (its name was not quoted)."""

    name: str
    expand: bool
    tabs_go: bool  # `<<-`: tabs at the begin of its lines do not count
    content: str = ""

    @property
    def text(self) -> str:
        return TABS.sub("", self.content) if self.tabs_go else self.content


@dataclass(frozen=True, slots=True)
class LogicalLine:
    """One instruction: continued lines joined, comments and empty lines in it left out."""

    text: str
    word: str  # as it is written
    flags: tuple[str, ...]
    rest: str
    location: Location
    comments: tuple[str, ...]  # those that stand right above it, without their marks
    heredocs: tuple[Heredoc, ...] = ()


@dataclass(slots=True)
class FileLines:
    """All lines of a Dockerfile."""

    escape: str = "\\"
    directives: dict[str, str] = field(default_factory=dict)
    lines: list[LogicalLine] = field(default_factory=list)
    empty_continuations: list[Location] = field(default_factory=list)


def read_lines(source: bytes, *, may_be_empty: bool = False) -> FileLines:
    """Read a Dockerfile. Bytes that are not UTF-8 become U+FFFD. Raises: DockerfileError."""
    if not source and not may_be_empty:
        raise DockerfileError("the Dockerfile cannot be empty")
    if len(source) > MAX_FILE:
        raise DockerfileError(f"the Dockerfile is larger than {MAX_FILE} bytes")
    if b"\0" in source:
        raise DockerfileError(
            "the Dockerfile holds a byte 0", Location(*[source.count(b"\n", 0, source.index(0)) + 1] * 2)
        )
    reader = _FileReader(source.decode(errors="replace").removeprefix(BOM))
    reader.read()
    if not reader.found.lines and not may_be_empty:
        raise DockerfileError("file with no instructions", Location(reader.number, reader.number))
    return reader.found


def parse_heredoc(word: str) -> Heredoc | None:
    """Read a word like `<<EOF`, `<<-"EOF"` or `3<<EOF`; None: it is none. Raises: DockerfileError."""
    if not (found := HEREDOC.match(word)) or not found[3]:
        return None
    names, raw_names = split(found[3], READ_NAME), split(found[3], READ_RAW_NAME)
    if len(names) != 1:
        return None
    quotes, raw_quotes = (sum(name.count(mark) for mark in "'\"") for name in (names[0], "".join(raw_names)))
    return Heredoc(names[0], quotes == raw_quotes, found[2] == "-")


def find_heredocs(line: str) -> list[Heredoc]:
    """Find the documents that a line asks for, in its order. Raises: DockerfileError."""
    try:
        words = split(line, READ_LINE)
    except DockerfileError:
        return []
    return [found for found in map(parse_heredoc, words) if found]


def detect_syntax(source: bytes) -> str:
    """Answer the image of `# syntax=…`, without what follows it; "" if there is none.

    Like BuildKit's, it also looks behind a first line `#!…`, and takes `// syntax=…`.
    """
    text = source[:MAX_LINE].decode(errors="replace").removeprefix(BOM)
    lines = text.split("\n")
    if lines[0].startswith("#!"):
        del lines[0]
    for mark in ("#", "//"):
        seen: set[str] = set()
        for line in lines:
            found = DIRECTIVE.match(line.rstrip("\r").replace(mark, "#", 1)) if line.startswith(mark) else None
            name = found[1].lower() if found else ""
            if found is None or name not in DIRECTIVES or name in seen:
                break
            if name == "syntax":
                return found[2].split(" ")[0]
            seen.add(name)
    return ""


@dataclass(slots=True)
class _FileReader:
    text: str
    found: FileLines = field(default_factory=FileLines)
    number: int = 0  # of the line read last
    in_head: bool = True  # directives may still come
    comments: list[str] = field(default_factory=list)

    def read(self) -> None:
        lines = self.physical_lines()
        for line in lines:
            stripped = line.lstrip(SPACES)
            if stripped.startswith("#"):
                self.take_comment(stripped)
                continue
            self.in_head = False
            first = self.number
            text = self.join(stripped.rstrip("\r\n"), lines)
            if text:
                self.add(text, first, lines)

    def physical_lines(self) -> Iterator[str]:
        position = 0
        while position < len(self.text):
            end = self.text.find("\n", position) + 1 or len(self.text)
            line = self.text[position:end]
            self.number += 1
            if len(line) > MAX_LINE or len(line.encode(errors="replace")) > MAX_LINE:
                at = Location(self.number, self.number)
                raise DockerfileError(f"dockerfile line greater than max allowed size of {MAX_LINE}", at)
            yield line
            position = end

    def take_comment(self, line: str) -> None:
        if self.in_head and self.take_directive(line.rstrip("\r\n")):
            return
        comment = line[1:].strip(SPACES)
        if comment:
            self.comments.append(comment)
        else:
            self.comments.clear()

    def take_directive(self, line: str) -> bool:
        found = DIRECTIVE.match(line)
        name = found[1].lower() if found else ""
        if found is None or name not in DIRECTIVES:
            self.in_head = False
            return False
        at = Location(self.number, self.number)
        if name in self.found.directives:
            raise DockerfileError(f"only one {name} parser directive can be used", at)
        self.found.directives[name] = found[2]
        if name == "escape":
            if found[2] not in CONTINUED:
                raise DockerfileError(f"invalid escape token '{found[2]}' does not match ` or \\", at)
            self.found.escape = found[2]
        return True

    def join(self, line: str, lines: Iterator[str]) -> str:
        """Join a line with those that continue it."""
        mark = CONTINUED[self.found.escape]
        out: list[str] = []
        has_empty = False
        while found := mark.search(line):
            out.append(line[: found.start()])
            for following in lines:
                line = following.rstrip("\r\n")
                stripped = line.lstrip(SPACES)
                if not stripped.startswith("#"):
                    if stripped:
                        break
                    has_empty = True
            else:
                line = ""
        out.append(line)
        if has_empty:
            self.found.empty_continuations.append(Location(self.number, self.number))
        return "".join(out)

    def add(self, text: str, first: int, lines: Iterator[str]) -> None:
        at = Location(first, self.number)
        if len(self.found.lines) >= MAX_INSTRUCTIONS:
            raise DockerfileError(f"more than {MAX_INSTRUCTIONS} instructions", at)
        word, flags, rest = split_instruction(text, self.found.escape)
        try:
            self.check(word, rest)
            heredocs = [self.read_heredoc(one, first, lines) for one in self.heredocs_of(text, word, rest)]
        except DockerfileError as error:
            raise error.at(at) from None
        at = Location(first, self.number)
        self.found.lines.append(LogicalLine(text, word, flags, rest, at, tuple(self.comments), tuple(heredocs)))
        self.comments = []

    def check(self, word: str, rest: str) -> None:
        """Check what comes before any instruction: pairs, and what JSON lists hold. Raises: DockerfileError."""
        if word.lower() in ("env", "label"):
            split_pairs(word.upper(), rest, self.found.escape)
        elif word.lower() in TAKE_JSON:
            read_json_words(rest)

    def heredocs_of(self, text: str, word: str, rest: str) -> list[Heredoc]:
        if "<<" not in text:
            return []
        if word.lower() == "onbuild":
            word, _, rest = split_instruction(rest, self.found.escape)
        if word.lower() not in TAKE_HEREDOCS or read_json_words(rest) is not None:
            return []
        return find_heredocs(text)

    def read_heredoc(self, heredoc: Heredoc, first: int, lines: Iterator[str]) -> Heredoc:
        content: list[str] = []
        for line in lines:
            bare = line.rstrip("\r\n")
            if (bare.lstrip("\t") if heredoc.tabs_go else bare) == heredoc.name:
                return Heredoc(heredoc.name, heredoc.expand, heredoc.tabs_go, "".join(content))
            content.append(line)
        raise DockerfileError("unterminated heredoc", Location(first, self.number))
