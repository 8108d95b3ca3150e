"""The volumes that plugins keep, as this host's. Nothing is remembered here: what is known of them is on records.

Who asks one plugin waits for it as long as the protocol says. Who asks all of them, since nobody said which has a
volume, waits for none that does not answer soon (`ASKED_S`): the others' users must not suffer from one that hangs.
"""

import asyncio
import builtins
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Final, TypeVar

from bennu.errors import BennuError
from bennu.go.rfc3339 import parse_rfc3339
from bennu.plugins import Plugins
from bennu.volumes.plugin_driver import PluginDriver, PluginVolume, all_drivers, find_driver
from bennu.volumes.volume import Volume

ASKED_S: Final = 5.0  # to say what it implements, and again to answer
Answer = TypeVar("Answer")

log = logging.getLogger(__name__)


class PluginVolumes:
    """All volumes of all plugins. Every call raises BennuError in the plugin's words, unless it says otherwise."""

    def __init__(self, plugins: Plugins) -> None:
        self._plugins = plugins

    async def list(self) -> tuple[builtins.list[Volume], builtins.list[str]]:
        """List them, and a warning for each plugin that told nothing, in dockerd's words. Raises: nothing."""
        volumes: builtins.list[Volume] = []
        warnings: builtins.list[str] = []

        async def ask(keeper: PluginDriver) -> tuple[builtins.list[PluginVolume], str]:
            known = [one for one in await keeper.list() if one.name]
            return known, await keeper.scope() if known else ""

        for keeper, answer in await self._ask_all(ask):
            if isinstance(answer, BennuError):
                warnings.append(f"list {keeper.name}: {answer}")
            else:
                known, scope = answer
                volumes += [_as_volume(one.name, one, keeper, scope) for one in known]
        return volumes, warnings

    async def find(self, name: str) -> Volume | None:
        """Find one of which nobody said whose it is; None: no plugin that answers has it. Raises: nothing."""

        async def ask(keeper: PluginDriver) -> Volume | None:
            found = await keeper.get(name)
            return None if found is None else _as_volume(name, found, keeper, await keeper.scope())

        for keeper, answer in await self._ask_all(ask):
            if isinstance(answer, BennuError):
                log.warning("whether plugin %s has a volume %s is not known: %s", keeper.name, name, answer)
            elif answer is not None:
                return answer
        return None

    async def _ask_all(
        self, ask: Callable[[PluginDriver], Awaitable[Answer]]
    ) -> builtins.list[tuple[PluginDriver, Answer | BennuError]]:
        """Ask all at once; the answer of one that fails is the failure."""

        async def ask_one(keeper: PluginDriver) -> tuple[PluginDriver, Answer | BennuError]:
            try:
                async with asyncio.timeout(ASKED_S):
                    return keeper, await ask(keeper)
            except TimeoutError:
                return keeper, BennuError(f"the plugin did not answer within {ASKED_S:g} s")
            except BennuError as error:
                return keeper, error

        return await asyncio.gather(*map(ask_one, await all_drivers(self._plugins, within_s=ASKED_S)))

    async def create(
        self, name: str, driver: str, options: Mapping[str, str] | None, labels: Mapping[str, str] | None
    ) -> Volume:
        """Let the plugin make one, unless it has one of that name."""
        try:
            keeper = await find_driver(self._plugins, driver)
            found = await keeper.get(name)
            if found is None:
                await keeper.create(name, options or {})
        except BennuError as error:
            error.args = (f"create {name}: {error}",)
            raise
        return Volume(
            name=name,
            driver=driver,
            mountpoint=found.mountpoint if found else await keeper.path(name),
            created_ns=time.time_ns(),
            labels=None if labels is None else dict(labels),
            options=None if options is None else dict(options),
            scope=await keeper.scope(),
        )

    async def mount(self, volume: Volume, user: str) -> str:
        """Mount it for `user`; answer where."""
        try:
            return await (await find_driver(self._plugins, volume.driver)).mount(volume.name, user)
        except BennuError as error:
            error.args = (f"error while mounting volume '{volume.mountpoint}': {error}",)
            raise

    async def unmount(self, volume: Volume, user: str) -> None:
        await (await find_driver(self._plugins, volume.driver)).unmount(volume.name, user)

    async def remove(self, volume: Volume) -> None:
        try:
            await (await find_driver(self._plugins, volume.driver)).remove(volume.name)
        except BennuError as error:
            error.args = (f"remove {volume.name}: {error}",)
            raise


def _as_volume(name: str, found: PluginVolume, keeper: PluginDriver, scope: str) -> Volume:
    return Volume(
        name=name,
        driver=keeper.name,
        mountpoint=found.mountpoint,
        created_ns=max(0, parse_rfc3339(found.created_at) or 0),
        scope=scope,
    )
