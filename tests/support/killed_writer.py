"""A database whose writer was killed right after an acknowledgement."""

import signal
import subprocess
import sys
from pathlib import Path

WRITER = """
import asyncio, os, signal, sys
from pathlib import Path
from bennu.store import Put, Transaction, open_sqlite
async def main():
    async with open_sqlite(Path(sys.argv[1])) as store:
        for number in range(30):
            await store.commit(Transaction([Put(f"key/{number}", bytes(2000))]))
        os.kill(os.getpid(), signal.SIGKILL)
asyncio.run(main())
"""


def kill_writer(path: Path) -> Path:
    """Make the database `path`, of 30 commits; all of it is in the write-ahead log."""
    done = subprocess.run([sys.executable, "-c", WRITER, path], check=False)
    assert done.returncode == -signal.SIGKILL
    return path
