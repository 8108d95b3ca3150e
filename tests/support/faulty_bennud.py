"""bennud that kills itself with SIGKILL around its N-th write, to prove that any instruction may be its last.

    python tests/support/faulty_bennud.py N before|after WORD  BENNUD-ARGUMENTS…

`before`: the write has not happened; `after`: it is on disk, but nobody was told. Only writes with WORD in a value
count; an empty one is in all.
"""

import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import bennu.engine.engine as engine_module
from bennu.daemon import main
from bennu.store import Put, Store, Transaction, open_sqlite


class FaultyStore:
    """A store whose process dies around one commit; everything else is the real store's."""

    def __init__(self, inner: Store, fatal: int, moment: str, word: bytes) -> None:
        self._inner = inner
        self._left = fatal
        self._moment = moment
        self._word = word

    def __getattr__(self, name: str) -> object:
        return getattr(self._inner, name)

    async def commit(self, transaction: Transaction) -> int:
        counts = any(isinstance(write, Put) and self._word in write.value for write in transaction.writes)
        self._left -= counts or not self._word
        fatal = self._left == 0 and (counts or not self._word)
        if fatal and self._moment == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        revision = await self._inner.commit(transaction)
        if fatal:
            os.kill(os.getpid(), signal.SIGKILL)
        return revision


if __name__ == "__main__":
    fatal, moment, word = int(sys.argv[1]), sys.argv[2], sys.argv[3].encode()

    @contextlib.asynccontextmanager
    async def open_faulty(path: Path) -> AsyncIterator[FaultyStore]:
        async with open_sqlite(path) as inner:
            yield FaultyStore(inner, fatal, moment, word)

    engine_module.open_sqlite = open_faulty  # type: ignore[assignment]
    sys.argv = ["bennud", *sys.argv[4:]]
    main()
