"""Plugins that keep volumes, and plugins that never answer."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from bennu import plugins
from bennu.errors import Conflict
from bennu.store import SqliteStore, open_sqlite
from bennu.volumes import Volumes, plugin_volumes

SOON_S = 0.2
Begin = Callable[..., Awaitable[None]]


@pytest.fixture
async def begin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Begin]:
    """Start a plugin that has some volumes; it answers none of the methods that are `silent`, and others late."""
    monkeypatch.setattr(plugins, "SOCKETS", tmp_path / "sockets")
    monkeypatch.setattr(plugins, "SPECS", (tmp_path,))
    monkeypatch.setattr(plugin_volumes, "ASKED_S", SOON_S)
    ended = asyncio.Event()
    async with AsyncExitStack() as ends:

        async def start(name: str, *volumes: str, silent: str = "", late_s: float = 0.0) -> None:
            async def answer(request: web.Request) -> web.Response:
                verb, body = request.path.rpartition(".")[2], json.loads(await request.text() or "{}")
                await (ended.wait() if verb in silent.split() else asyncio.sleep(late_s))
                has_it = body.get("Name") in volumes
                return web.json_response(
                    {
                        "Activate": {"Implements": ["VolumeDriver"]},
                        "List": {"Volumes": [{"Name": one, "CreatedAt": "2026-01-01T00:00:00Z"} for one in volumes]},
                        "Get": {"Volume": {"Name": body["Name"]}} if has_it else {"Err": "no such volume"},
                    }.get(verb, {})
                )

            app = web.Application()
            app.router.add_post("/{method}", answer)
            server = TestServer(app)
            await server.start_server()
            ends.push_async_callback(server.close)
            (tmp_path / f"{name}.spec").write_text(f"tcp://127.0.0.1:{server.port}")

        yield start
        ended.set()


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    async with open_sqlite(tmp_path / "state.db") as opened:
        yield opened


@pytest.fixture
async def volumes(tmp_path: Path, store: SqliteStore) -> Volumes:
    opened = Volumes(tmp_path / "volumes", store)
    await opened.open()
    return opened


async def test_a_plugin_that_never_answers_hides_only_its_own_volumes(begin: Begin, volumes: Volumes) -> None:
    await begin("dumb", silent="Activate")
    await begin("hung", "lost", silent="List Get")
    await begin("well", "one", "two")
    began = time.monotonic()
    found, warnings = await volumes.list_foreign()
    assert [(volume.driver, volume.name) for volume in found] == [("well", "one"), ("well", "two")]
    assert found[0].created_ns == 1767225600 * 10**9
    assert warnings == [f"list hung: the plugin did not answer within {SOON_S} s"]
    assert (await volumes.create("two")).driver == "well"
    assert (await volumes.create("new")).driver == "local"
    assert time.monotonic() - began < 15


async def test_many_ask_for_a_new_name_while_a_plugin_hangs(begin: Begin, volumes: Volumes) -> None:
    await begin("hung", silent="List Get")
    began = time.monotonic()
    made = await asyncio.gather(*(volumes.create("same") for _ in range(50)))
    assert len({id(volume) for volume in made}) == 1
    assert time.monotonic() - began < 50 * SOON_S / 2  # they do not wait for one another


async def test_of_two_keepers_one_gets_the_name(
    begin: Begin, volumes: Volumes, store: SqliteStore, tmp_path: Path
) -> None:
    await begin("slow", late_s=SOON_S / 4)
    made = await asyncio.gather(volumes.create("x1", "slow"), volumes.create("x1", "local"), return_exceptions=True)
    assert [type(one) for one in made].count(Conflict) == 1
    again = Volumes(tmp_path / "volumes", store)
    await again.open()
    assert again.find("x1").driver == volumes.find("x1").driver == "slow"
    assert not list((tmp_path / "volumes").iterdir())


async def test_a_plugins_volume_is_known_after_a_restart(
    begin: Begin, volumes: Volumes, store: SqliteStore, tmp_path: Path
) -> None:
    await begin("well", "one")
    assert (await volumes.look_up("one")).driver == "well"
    again = Volumes(tmp_path / "volumes", store)
    await again.open()
    assert [volume.driver for volume in again.list()] == ["well"]
