"""Prints plain output: tables with docker's spacing, and nothing that steers a terminal."""

import sys
from collections.abc import Iterable, Sequence
from typing import Final, TextIO

PADDING: Final = 3
LEAST_WIDTH: Final = 10
# Controls of both sets but for line ends and tabs, and those by which text changes its direction.
STEERING: Final = {*range(0x20), *range(0x7F, 0xA0), *range(0x202A, 0x202F), *range(0x2066, 0x206A)} - {0x09, 0x0A}
SHOWN: Final = {code: f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" for code in STEERING}


def say(text: str, *, styled: bool = False) -> None:
    """Print a line on stdout at once, whatever bytes a name holds. `styled`: what steers the terminal in it is ours."""
    sys.stdout.write((text if styled else visible(text, sys.stdout)) + "\n")
    sys.stdout.flush()


def complain(text: str) -> None:
    """Print a line on stderr, after what stdout still holds."""
    sys.stdout.flush()
    print(visible(text, sys.stderr), file=sys.stderr, flush=True)


def visible(text: str, stream: TextIO) -> str:
    """Replace what would steer a terminal: containers choose words as well.

    Logs and streams of containers, and of builds, go through as they are: their programs may want to.
    """
    return text.translate(SHOWN) if stream.isatty() else text


def align(rows: Iterable[Sequence[str]]) -> str:
    """Write rows as lines; each column is three spaces wider than its widest cell and at least ten, but the last."""
    rows = list(rows)
    widths: dict[int, int] = {}
    for row in rows:
        for column, cell in enumerate(row[:-1]):
            widths[column] = max(widths.get(column, 0), len(cell) + PADDING, LEAST_WIDTH)
    lines = []
    for row in rows:
        cells = [cell.ljust(widths[column]) for column, cell in enumerate(row[:-1])]
        lines.append("".join([*cells, row[-1]]) if row else "")
    return "\n".join(lines)


def shorten_id(identity: str) -> str:
    return identity.removeprefix("sha256:")[:12]


def ellipsis(text: str, width: int) -> str:
    """Cut to at most `width` characters, the last one `…` when something was cut."""
    if len(text) <= width:
        return text
    return text[: width - 1] + "…" if width > 1 else text[:width]
