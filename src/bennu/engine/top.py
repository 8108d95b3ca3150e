"""`docker top`: the host's `ps`, narrowed to one container's processes."""

from collections.abc import Sequence

from bennu.errors import BennuError
from bennu.process import run

PS_TIMEOUT_S = 10


async def read_processes(pids: Sequence[int], ps_args: str) -> tuple[list[str], list[list[str]]]:
    """Read titles and rows of `ps ARGS` (default `-ef`) for these host pids.

    Raises: BennuError when ps refuses the arguments or shows no PID column.
    """
    words = ps_args.split() or ["-ef"]
    done = await run(["ps", *words], timeout_s=PS_TIMEOUT_S)
    if done.exit_code != 0:
        raise BennuError(f"ps: {done.stderr.decode(errors='replace').strip()}")
    return parse_ps(done.stdout.decode(errors="replace"), set(pids))


def parse_ps(output: str, pids: set[int]) -> tuple[list[str], list[list[str]]]:
    """Parse ps output into titles and the rows of `pids`; the last column takes the rest of its line with blanks."""
    lines = output.splitlines()
    titles = lines[0].split() if lines else []
    if "PID" not in titles:
        raise BennuError("Couldn't find PID field in ps output")
    column = titles.index("PID")
    rows = [line.split(None, len(titles) - 1) for line in lines[1:]]
    return titles, [row for row in rows if len(row) > column and row[column].isdecimal() and int(row[column]) in pids]
