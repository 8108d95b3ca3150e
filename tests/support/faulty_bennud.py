"""bennud that kills itself with SIGKILL around its N-th write, to prove that any instruction may be its last.

    python tests/support/faulty_bennud.py N before|after  BENNUD-ARGUMENTS…

`before`: the write has not happened; `after`: it is on disk, but nobody was told.
"""

import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import bennu.engine.engine as engine_module
from bennu.daemon import main
from bennu.store import Store, Transaction, open_sqlite


class FaultyStore:
    """A store whose process dies around one commit; everything else is the real store's."""

    def __init__(self, inner: Store, fatal: int, moment: str) -> None:
        self._inner = inner
        self._left = fatal
        self._moment = moment

    def __getattr__(self, name: str) -> object:
        return getattr(self._inner, name)

    async def commit(self, transaction: Transaction) -> int:
        self._left -= 1
        fatal = self._left == 0
        if fatal and self._moment == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        revision = await self._inner.commit(transaction)
        if fatal:
            os.kill(os.getpid(), signal.SIGKILL)
        return revision


if __name__ == "__main__":
    fatal, moment = int(sys.argv[1]), sys.argv[2]

    @contextlib.asynccontextmanager
    async def open_faulty(path: Path) -> AsyncIterator[FaultyStore]:
        async with open_sqlite(path) as inner:
            yield FaultyStore(inner, fatal, moment)

    engine_module.open_sqlite = open_faulty  # type: ignore[assignment]
    sys.argv = ["bennud", *sys.argv[3:]]
    main()
