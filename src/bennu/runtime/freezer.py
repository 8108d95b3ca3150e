"""Freezes and thaws all processes of a container: `docker pause` and `docker unpause`."""

import asyncio
import os
from typing import Final

from bennu.errors import BennuError
from bennu.runtime.bundle import Bundles, open_process
from bennu.runtime.cgroups import Cgroups
from bennu.runtime.failures import NotAlive

FREEZE_LIMIT_MS: Final = 1000


class Freezer:
    """Freezes and thaws containers, by their ids."""

    def __init__(self, bundles: Bundles, cgroups: Cgroups) -> None:
        self._bundles = bundles
        self._cgroups = cgroups

    async def pause(self, container_id: str) -> None:
        """Freeze everything in it; returns when it is frozen. Raises: NotAlive, BennuError."""
        await self._set_frozen(container_id, frozen=True)

    async def resume(self, container_id: str) -> None:
        """Thaw everything in it. Raises: NotAlive, BennuError."""
        await self._set_frozen(container_id, frozen=False)

    async def is_frozen(self, container_id: str) -> bool:
        """Tell whether it is paused; a freeze that was begun is brought to its end first. Raises: NotAlive."""
        bundle, facts = self._bundles.find(container_id)
        os.close(open_process(bundle, facts))
        if self._cgroups.is_frozen(facts.cgroup):
            return True
        if not self._cgroups.is_asked_to_freeze(facts.cgroup):
            return False
        try:
            await self.pause(container_id)
        except NotAlive:
            raise
        except BennuError:
            return False  # it was thawed again
        return True

    async def _set_frozen(self, container_id: str, *, frozen: bool) -> None:
        _, facts = self._bundles.find(container_id)
        try:
            self._cgroups.freeze(facts.cgroup, frozen=frozen)
            for _ in range(FREEZE_LIMIT_MS):
                if self._cgroups.is_frozen(facts.cgroup) == frozen:
                    return
                await asyncio.sleep(0.001)
                if frozen and not self._cgroups.unified:
                    self._cgroups.freeze(facts.cgroup, frozen=True)  # version 1 forgets who was about to fork
        except FileNotFoundError:
            raise NotAlive(f"container {container_id} is not running") from None
        except OSError as error:
            raise BennuError(f"cannot {'freeze' if frozen else 'thaw'} container {container_id}: {error}") from error
        if frozen:
            self._cgroups.freeze(facts.cgroup, frozen=False)
        raise BennuError(f"container {container_id} did not {'freeze' if frozen else 'thaw'} within a second")
