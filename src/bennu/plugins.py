"""Legacy plugins: programs of the administrator's that answer HTTP on a socket, and that the engine asks.

Where they are looked for, how they introduce themselves and how they are asked is Docker's plugin API (docs
`extend/plugin_api`, moby `pkg/plugins`): a socket `/run/docker/plugins/NAME.sock`, or a file `NAME.spec` with an
address or `NAME.json` with an address and certificates, below /etc/docker/plugins or /usr/lib/docker/plugins.
"""

import asyncio
import logging
import ssl
import stat
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit
from weakref import WeakValueDictionary

import msgspec

from bennu.errors import BennuError, NotFound

AUTHORIZATION: Final = "authz"
VOLUMES: Final = "VolumeDriver"
SOCKETS: Final = Path("/run/docker/plugins")
SPECS: Final = (Path("/etc/docker/plugins"), Path("/usr/lib/docker/plugins"))
MEDIA_TYPE: Final = "application/vnd.docker.plugins.v1.2+json"
HOST: Final = "plugin.moby.localhost"  # of requests over a unix socket
PATIENCE_S: Final = 15.0  # for one that is not there yet when the daemon starts
CALL_PATIENCE_S: Final = 4.0  # for one that cannot be reached: it may be about to start again
LONGEST_ANSWER: Final = 16 << 20
log = logging.getLogger(__name__)


class PluginTls(
    msgspec.Struct, rename={"skip": "InsecureSkipVerify", "ca": "CAFile", "cert": "CertFile", "key": "KeyFile"}
):
    """Certificates for a plugin over TLS; without a CA any of the plugin's is good."""

    skip: bool = False
    ca: str = ""
    cert: str = ""
    key: str = ""


class PluginSpec(msgspec.Struct, rename={"address": "Addr", "tls": "TLSConfig"}):
    """What a `.json` file says of a plugin."""

    address: str
    tls: PluginTls | None = None


class Plugin:
    """One plugin, by its address. A call opens a connection and closes it."""

    def __init__(self, name: str, spec: PluginSpec) -> None:
        self.name = name
        self.implements: frozenset[str] = frozenset()
        self._spec = spec
        self._url = urlsplit(spec.address)

    async def introduce(self, *, patience_s: float) -> None:
        """Ask what it implements. Raises: BennuError."""
        manifest = await self.call("Plugin.Activate", None, 60.0, patience_s=patience_s)
        self.implements = frozenset(map(str, manifest.get("Implements") or ()))

    async def call(
        self,
        method: str,
        arguments: Mapping[str, Any] | None,
        timeout_s: float,
        *,
        patience_s: float = CALL_PATIENCE_S,
    ) -> dict[str, Any]:
        """Ask it; one that cannot be reached is tried again for a while. Raises: BennuError in its own words."""
        import aiohttp

        body = b"" if arguments is None else msgspec.json.encode(arguments)
        deadline, pause_s = time.monotonic() + patience_s, 0.25
        while True:
            try:
                async with asyncio.timeout(timeout_s):
                    status, text = await self._post(method, body)
                break
            except TimeoutError:
                raise BennuError(f"plugin {self.name} did not answer {method} within {timeout_s:g} s") from None
            except (OSError, aiohttp.ClientError) as error:
                if time.monotonic() + pause_s > deadline:
                    raise BennuError(f"{method}: {error}") from None
                log.warning("plugin %s cannot be reached: %s; trying again in %g s", self.name, error, pause_s)
                await asyncio.sleep(pause_s)
                pause_s *= 2
        return self._read(method, status, text)

    async def _post(self, method: str, body: bytes) -> tuple[int, bytes]:
        import aiohttp

        is_local = self._url.scheme == "unix"
        connector = aiohttp.UnixConnector(self._url.path) if is_local else aiohttp.TCPConnector(ssl=self._tls())
        scheme = "https" if self._url.scheme == "https" else "http"
        address = f"{scheme}://{HOST if is_local else self._url.netloc}/{method}"
        async with (
            aiohttp.ClientSession(connector=connector, auto_decompress=False) as session,
            session.post(address, data=body, headers={"Accept": MEDIA_TYPE}, allow_redirects=False) as answer,
        ):
            parts: list[bytes] = []
            async for part in answer.content.iter_any():
                parts.append(part)
                if sum(map(len, parts)) > LONGEST_ANSWER:
                    raise BennuError(f"the answer of plugin {self.name} to {method} is too long")
            return answer.status, b"".join(parts)

    def _tls(self) -> ssl.SSLContext | bool:
        if self._url.scheme != "https":
            return False
        tls = self._spec.tls or PluginTls(skip=True)
        context = ssl.create_default_context(cafile=tls.ca or None)
        if tls.skip or not tls.ca:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if tls.cert:
            context.load_cert_chain(tls.cert, tls.key)
        return context

    def _read(self, method: str, status: int, text: bytes) -> dict[str, Any]:
        try:
            found = msgspec.json.decode(text) if text.strip() else {}
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
            found = None
        if status != 200:
            told = found.get("Err") if isinstance(found, dict) else ""
            raise BennuError(f"{method}: {told or text.decode(errors='replace').strip()}")
        if not isinstance(found, dict):
            raise BennuError(f"{method}: plugin {self.name} did not answer with a JSON object")
        return found


class Plugins:
    """The plugins of this host; each is looked for when it is first asked for, and then remembered."""

    def __init__(self) -> None:
        self._known: dict[str, Plugin] = {}
        self._finding: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def find(self, name: str, kind: str, *, patience_s: float = 0.0) -> Plugin:
        """Find the plugin of this name that implements `kind`; wait `patience_s` for one that is not there yet.

        Raises: NotFound, BennuError.
        """
        plugin = self._known.get(name)
        if plugin is None:  # one that does not answer holds up only those who ask for it
            async with self._finding.setdefault(name, asyncio.Lock()):
                plugin = self._known.get(name) or await self._introduced(name, patience_s)
                self._known[name] = plugin
        if kind not in plugin.implements:
            raise NotFound(
                f'Plugin does not implement the requested driver: plugin="{name}", requested implementation="{kind}"'
            )
        return plugin

    async def _introduced(self, name: str, patience_s: float) -> Plugin:
        deadline = time.monotonic() + patience_s
        while (spec := await asyncio.to_thread(find_spec, name)) is None:
            if time.monotonic() >= deadline:
                raise NotFound(f'plugin "{name}" not found')
            await asyncio.sleep(0.5)
        plugin = Plugin(name, spec)
        await plugin.introduce(patience_s=patience_s)
        return plugin

    async def all_of(self, kind: str, *, within_s: float) -> list[Plugin]:
        """List those that implement `kind` and can be found, reached and asked for that within this time, by name."""
        names = await asyncio.to_thread(lambda: sorted({*scan(), *self._known}))
        found = await asyncio.gather(*(self._find_or_pass_over(name, kind, within_s) for name in names))
        return [plugin for plugin in found if plugin is not None]

    async def _find_or_pass_over(self, name: str, kind: str, within_s: float) -> Plugin | None:
        try:
            async with asyncio.timeout(within_s):
                return await self.find(name, kind)
        except (BennuError, TimeoutError) as error:
            log.debug("plugin %s is passed over: %r", name, error)
            return None

    def known_names(self, kind: str) -> list[str]:
        """List the names of those that have been asked for and implement `kind`."""
        return sorted(name for name, plugin in self._known.items() if kind in plugin.implements)


def _places(folder: Path, name: str, suffix: str) -> Iterator[Path]:
    yield folder / f"{name}{suffix}"
    yield folder / name / f"{name}{suffix}"


def find_spec(name: str) -> PluginSpec | None:
    """Find where the plugin of this name is. Blocks. Raises: BennuError for a file that makes no sense."""
    if not name or "/" in name or name.startswith("."):
        return None
    for path in _places(SOCKETS, name, ".sock"):
        if _is_socket(path):
            return PluginSpec(f"unix://{path}")
    for folder in SPECS:
        for suffix in (".spec", ".json"):
            for path in _places(folder, name, suffix):
                if path.is_file():
                    return read_spec(path)
    return None


def read_spec(path: Path) -> PluginSpec:
    """Read a file that names a plugin's address. Raises: BennuError."""
    try:
        text = path.read_text().strip()
        spec = msgspec.json.decode(text, type=PluginSpec) if path.suffix == ".json" else PluginSpec(text)
        scheme = urlsplit(spec.address).scheme
    except (OSError, ValueError, msgspec.DecodeError) as error:
        raise BennuError(f"plugin file {path}: {error}") from None
    if scheme not in ("unix", "tcp", "http", "https"):
        raise BennuError(f"plugin file {path}: Unknown protocol")
    return spec


def scan() -> Iterator[str]:
    """List the names of all plugins that can be found. Blocks."""
    for folder, suffixes in ((SOCKETS, {".sock"}), *((folder, {".spec", ".json"}) for folder in SPECS)):
        for suffix in suffixes:
            for pattern in (f"*{suffix}", f"*/*{suffix}"):
                for path in folder.glob(pattern):
                    if path.parent == folder or path.parent.name == path.stem:
                        yield path.stem


def _is_socket(path: Path) -> bool:
    try:
        return stat.S_ISSOCK(path.stat().st_mode)
    except OSError:
        return False
