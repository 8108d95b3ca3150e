"""Lists and single objects as `--format` asks for them."""

import re
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from bennu.cli.output import align, complain, say
from bennu.cli.template import Template
from bennu.cli.template_functions import to_json

Item = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Listing:
    """How one kind of object is listed: default columns, the heading of each, the column that `-q` shows."""

    headers: Mapping[str, str]  # where the heading is not simply the upper-case word
    columns: str
    quiet: str

    def heading(self, name: str) -> str:
        return self.headers.get(name) or name.upper()


class Headings(dict[str, Any]):
    """Stands in for an object while the heading line is rendered."""

    def __init__(self, listing: Listing, words: Iterable[str]) -> None:
        super().__init__({word: listing.heading(word) for word in words})
        self["Label"] = lambda name: name.rpartition(".")[2]


class Aliased(dict[str, Any]):
    """An object whose fields answer to further names, too; as JSON it stays what it is."""

    def __init__(self, item: Item, aliases: Mapping[str, str]) -> None:
        super().__init__(item)
        self.aliases = aliases

    def __contains__(self, name: object) -> bool:
        return super().__contains__(name) or name in self.aliases

    def __missing__(self, name: str) -> Any:
        return self.get(self.aliases[name], "")


def unescape(form: str) -> str:
    return form.replace("\\t", "\t").replace("\\n", "\n")


def print_list(
    listing: Listing,
    items: Iterable[Any],
    describe: Callable[[Any, float], Item],
    form: str | None,
    quiet: bool,
    columns: str | None = None,
) -> None:
    """Print `items` as a table (the default), by a template, as JSON lines, or only their IDs."""
    now = time.time()
    rows = [dict(sorted(describe(item, now).items())) for item in items]
    if quiet:
        if form not in (None, "table"):
            complain("WARNING: Ignoring custom format, because both --format and --quiet are set.")
        for row in rows:
            say(row[listing.quiet])
        return
    if form == "json":
        for row in rows:
            say(to_json(row))
        return
    if form is None or form == "table":
        form = "table " + "\t".join("{{." + name + "}}" for name in (columns or listing.columns).split())
    table = re.match(r"^table(\s+|$)", form) is not None
    template = Template(unescape(re.sub(r"^table\s*", "", form) if table else form))
    lines = [template.render(row) for row in rows]
    if not table:
        for line in lines:
            say(line)
        return
    words = set(rows[0] if rows else ()) | set(re.findall(r"\.(\w+)", form))
    heading = template.render(Headings(listing, words))
    say("\n".join(line.rstrip("\n") for line in align_lines([heading, *lines])))


def align_lines(lines: list[str]) -> list[str]:
    return align([line.split("\t") for line in lines]).split("\n")


def print_formatted(form: str, value: Any) -> None:
    """One object by a template, or as JSON."""
    say(make_renderer(form)(value))


def make_renderer(form: str) -> Callable[[Any], str]:
    return to_json if form == "json" else Template(unescape(form)).render
