"""The bound on probes: it holds, and probes that hang delay no others."""

import asyncio

import pytest

from bennu.engine.probes import PLACE_S, PROBES_AT_ONCE, ProbePlaces


async def hold(places: ProbePlaces, until: asyncio.Event) -> None:
    async with places.take():
        await until.wait()


@pytest.mark.slow
async def test_no_more_than_the_bound_start_and_hung_ones_give_way() -> None:
    places, end = ProbePlaces(), asyncio.Event()
    hung = [asyncio.ensure_future(hold(places, end)) for _ in range(PROBES_AT_ONCE + 3)]
    await asyncio.sleep(0)
    assert (places.running, places.waiting) == (PROBES_AT_ONCE, 3)
    async with asyncio.timeout(PLACE_S + 0.5):
        async with places.take():
            assert places.running == PROBES_AT_ONCE + 4
            assert places.slow == PROBES_AT_ONCE
    end.set()
    await asyncio.gather(*hung)
    assert (places.running, places.waiting, places.slow) == (0, 0, 0)
    assert places.finished == PROBES_AT_ONCE + 4
    held = [asyncio.ensure_future(hold(places, asyncio.Event())) for _ in range(PROBES_AT_ONCE + 1)]
    await asyncio.sleep(0)
    assert places.waiting == 1, "a place given back twice is a place too many"
    for one in held:
        one.cancel()
    await asyncio.gather(*held, return_exceptions=True)
    assert places.running == places.waiting == 0
