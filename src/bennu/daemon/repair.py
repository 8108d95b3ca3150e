"""`bennud --repair`: make the state anew from what lies beside it, tell what was done, and end."""

import asyncio

from bennu.daemon.options import Options
from bennu.daemon.sockets import hold_roots
from bennu.engine.repair import repair
from bennu.errors import BennuError


def run_repair(options: Options) -> None:
    """Repair the state and print what was done. Raises: BennuError, also while a bennud runs on these roots."""
    with hold_roots(options.data_root, options.exec_root):
        try:
            told = asyncio.run(repair(options.data_root, options.exec_root))
        except OSError as error:
            raise BennuError(f"cannot repair the state in {options.data_root}: {error}") from error
    print("\n".join(told))
