"""Volumes that a legacy plugin keeps: Docker's volume plugin protocol (docs `extend/plugins_volume`).

A plugin knows its volumes by name and mounts one for each user on its own; where that is, is known only while it is.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from bennu.errors import BennuError, NotFound
from bennu.plugins import VOLUMES, Plugin, Plugins

LONG_S: Final = 120.0
SHORT_S: Final = 60.0


class PluginVolume(msgspec.Struct, rename="pascal"):
    """What a plugin tells of one of its volumes; `mountpoint` is empty where it is not mounted."""

    name: str = ""
    mountpoint: str = ""
    created_at: str = ""
    status: dict[str, Any] | None = None


class PluginDriver:
    """One plugin, as a driver of volumes. Every call raises BennuError in the plugin's words."""

    def __init__(self, plugin: Plugin) -> None:
        self.name = plugin.name
        self._plugin = plugin

    async def create(self, name: str, options: Mapping[str, str]) -> None:
        await self._call("Create", {"Name": name, "Opts": dict(options)}, LONG_S)

    async def remove(self, name: str) -> None:
        await self._call("Remove", {"Name": name})

    async def mount(self, name: str, user: str) -> str:
        """Mount it for `user`; answer where."""
        found = (await self._call("Mount", {"Name": name, "ID": user}, LONG_S)).get("Mountpoint")
        if not isinstance(found, str) or not Path(found).is_absolute():
            raise BennuError(f"VolumeDriver.Mount: plugin {self.name} mounted {name} nowhere")
        return found

    async def unmount(self, name: str, user: str) -> None:
        await self._call("Unmount", {"Name": name, "ID": user})

    async def path(self, name: str) -> str:
        """Answer where it is mounted; "" where it is not."""
        try:
            return str((await self._call("Path", {"Name": name})).get("Mountpoint") or "")
        except BennuError:
            return ""

    async def get(self, name: str) -> PluginVolume | None:
        """Answer what it knows of a volume; None: there is none, which plugins say in words of their own."""
        try:
            found = (await self._call("Get", {"Name": name})).get("Volume")
        except BennuError:
            return None
        return _read(found) if found else None

    async def list(self) -> list[PluginVolume]:
        return [_read(entry) for entry in (await self._call("List", {})).get("Volumes") or () if entry]

    async def scope(self) -> str:
        """Answer `global` where its volumes are the same on every host; else, and where it does not say, `local`."""
        try:
            found = (await self._call("Capabilities", {})).get("Capabilities")
        except BennuError:
            return "local"
        scope = str(found.get("Scope") or "").lower() if isinstance(found, dict) else ""
        return scope if scope == "global" else "local"

    async def _call(self, verb: str, arguments: Mapping[str, Any], timeout_s: float = SHORT_S) -> dict[str, Any]:
        answer = await self._plugin.call(f"{VOLUMES}.{verb}", arguments, timeout_s)
        if answer.get("Err"):
            raise BennuError(str(answer["Err"]))
        return answer


def _read(found: Any) -> PluginVolume:
    try:
        return msgspec.convert(found, PluginVolume)
    except msgspec.ValidationError as error:
        raise BennuError(f"a volume plugin's answer makes no sense: {error}") from None


async def find_driver(plugins: Plugins, name: str) -> PluginDriver:
    """Find a driver. Raises: NotFound, BennuError with dockerd's words."""
    try:
        return PluginDriver(await plugins.find(name, VOLUMES))
    except NotFound as error:
        raise NotFound(f"error looking up volume plugin {name}: {error}") from None


async def all_drivers(plugins: Plugins, *, within_s: float) -> list[PluginDriver]:
    """List those that can be found now; who has not said what it is by then is left out."""
    return [PluginDriver(plugin) for plugin in await plugins.all_of(VOLUMES, within_s=within_s)]
