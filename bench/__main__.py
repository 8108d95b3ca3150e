"""Measure, print the table, write docs/benchmarks.md.  python -m bench [--rounds N] [--no-write]"""

import argparse
import os
import platform
import sys
from collections.abc import Sequence
from datetime import UTC, datetime

from bench.engines import ROOT, all_engines
from bench.network import extra_processes, latency, throughput
from bench.probing import cost, lateness, revival
from bench.recovery import recover
from bench.resurrection import come_back, crash_loops
from bench.rollout import roll_out
from bench.rows import ROWS, Row

SECTIONS = (
    ("commands", ROWS),
    ("resurrection", (come_back, crash_loops, recover)),
    ("health", (cost, lateness, revival)),
    ("rollout", (roll_out,)),
    ("network", (latency, throughput, extra_processes)),
)

PAGE = ROOT / "docs/benchmarks.md"


def main() -> int:
    options = read_options()
    with all_engines() as engines:
        names = [engine.name for engine in engines]
        measures = [measure for name, section in SECTIONS for measure in section if options.only in (None, name)]
        rows = [row for measure in measures for row in measure(engines, options.rounds)]
    table = draw(rows, names)
    print(f"\n{table}")
    if not options.no_write and options.only is None:
        PAGE.write_text(page(table, options.rounds))
        print(f"\nwritten to {PAGE.relative_to(ROOT)}")
    return 0


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="./dev bench")
    parser.add_argument("--rounds", type=int, default=15, help="timed repetitions of each command (default 15)")
    parser.add_argument("--only", choices=[name for name, _ in SECTIONS], help="one section; then nothing is written")
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


def page(table: str, rounds: int) -> str:
    load = os.getloadavg()[0]
    return f"""# Benchmarks

Written by `./dev bench` on {datetime.now(UTC):%Y-%m-%d}: {os.cpu_count()} cores, Linux {platform.release()}, Python
{platform.python_version()}, load average {load:.1f} at the end. Wall time of whole commands of the unmodified docker
client, median of {rounds} rounds; the engines take turns. Read ratios, not milliseconds: other machines differ, and the
client's own start is part of each time.

{table}

*Helper processes* are conmon for Bennu, and containerd-shim for dockerd; *everything of the engine* also counts what
the daemons themselves grew by. PSS shares out pages that several processes hold. dockerd runs private, with the same
settings as a default installation but for its roots and a network namespace of its own.
"""


sys.exit(main())
