"""What a new daemon goes on with, and what it leaves to the requests that began after it."""

from types import SimpleNamespace
from typing import Any

from bennu.engine.recovery import finish_errands, finish_start
from bennu.lifecycle.status import State


def a_container(name: str, *, auto_remove: bool) -> Any:
    record = SimpleNamespace(
        errand=None, unsent=0, state=State.EXITED, host_config=SimpleNamespace(auto_remove=auto_remove)
    )
    return SimpleNamespace(id=name, record=record, finish_errand=lambda: None)


async def test_a_restart_asked_for_while_it_tidies_up_is_not_done_twice() -> None:
    old, web = a_container("old", auto_remove=True), a_container("web", auto_remove=False)
    removed = []

    async def auto_remove(container_id: str) -> None:
        removed.append(container_id)
        web.record.errand = "a client's restart, on record as it begins"

    begun: list[str] = []
    tasks = SimpleNamespace(create_task=lambda coroutine, name: begun.append(name))
    services: Any = SimpleNamespace(index=SimpleNamespace(auto_remove=auto_remove), tasks=tasks)
    await finish_start(services, finish_errands(services, [old, web]), [])
    assert (removed, begun) == (["old"], [])
