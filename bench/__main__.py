"""Measure, print the table, write docs/benchmarks.md.  python -m bench [--rounds N] [--no-write]"""

import argparse
import os
import platform
import sys
from collections.abc import Sequence
from datetime import UTC, datetime

from bench.build import build
from bench.engines import ROOT, all_engines
from bench.network import extra_processes, latency, throughput
from bench.probing import cost, lateness, revival
from bench.recovery import recover
from bench.registry import move_images
from bench.resurrection import come_back, crash_loops
from bench.rollout import roll_out
from bench.rows import ROWS, Row
from bench.services import serve, simulate

SECTIONS = (
    ("commands", ROWS),
    ("resurrection", (come_back, crash_loops, recover)),
    ("health", (cost, lateness, revival)),
    ("services", (serve, simulate)),
    ("rollout", (roll_out,)),
    ("build", (build,)),
    ("network", (latency, throughput, extra_processes)),
    ("registry", (move_images,)),
)

PAGE = ROOT / "docs/benchmarks.md"
HEAD = """# Benchmarks

Made by `./dev bench` (`--only SECTION` measures a part): Bennu beside dockerd on the same machine in the same run,
the engines taking turns, driven by the unmodified docker client. Times are medians (of builds the smallest) of whole
commands, the client's own start included. Read ratios, not milliseconds: other machines differ.

*Helper processes* are conmon for Bennu, and containerd-shim for dockerd; *everything of the engine* also counts what
the daemons themselves grew by.
"""


def main() -> int:
    options = read_options()
    with all_engines() as engines:
        names = [engine.name for engine in engines]
        for section, measures in SECTIONS:
            if options.only and section not in options.only:
                continue
            rows = [row for measure in measures for row in measure(engines, options.rounds)]
            table = draw(rows, names)
            print(f"\n{table}\n", flush=True)
            if not options.no_write:
                write_section(section, table, options.rounds)
    return 0


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="./dev bench")
    parser.add_argument("--rounds", type=int, default=15, help="timed repetitions of each command (default 15)")
    parser.add_argument("--only", action="append", choices=[name for name, _ in SECTIONS], help="a section; repeatable")
    parser.add_argument("--no-write", action="store_true", help="leave docs/benchmarks.md as it is")
    return parser.parse_args()


def draw(rows: Sequence[Row], names: Sequence[str]) -> str:
    """A Markdown table; the ratio compares the first engine with the second."""
    compared = len(names) > 1
    head = ["", *names, *(["ratio"] if compared else []), "to reach"]
    lines = [head, ["---", *("---:" for _ in head[1:-1]), "---"]]
    for row in rows:
        values = [row.values.get(name) for name in names]
        ratio = [f"{values[0] / values[1]:.2f}" if values[0] and values[1] else ""] if compared else []
        shown = ["" if value is None else f"{value:.3g} {row.unit}" for value in values]
        lines.append([row.name, *shown, *ratio, row.goal])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def write_section(section: str, table: str, rounds: int) -> None:
    """Put a section's table into the page, in the place of its former one."""
    begin, end = f"<!-- {section} -->", f"<!-- end of {section} -->"
    block = f"{begin}\n## {section.title()}\n\n{circumstances(rounds)}\n\n{table}\n{end}\n"
    text = PAGE.read_text() if PAGE.exists() else HEAD
    if begin in text:
        before, _, rest = text.partition(begin)
        text = before + block + rest.partition(f"{end}\n")[2]
    else:
        text = f"{text.rstrip()}\n\n{block}"
    PAGE.write_text(text)
    print(f"written to {PAGE.relative_to(ROOT)}", flush=True)


def circumstances(rounds: int) -> str:
    now, load = datetime.now(UTC), os.getloadavg()[0]
    system = f"{os.cpu_count()} cores, Linux {platform.release()}, Python {platform.python_version()}"
    return f"{now:%Y-%m-%d}: {system}, load average {load:.1f} at the end, {rounds} rounds."


if __name__ == "__main__":
    sys.exit(main())
