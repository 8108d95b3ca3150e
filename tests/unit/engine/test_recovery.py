"""What a new daemon goes on with, and what it leaves to the requests that began after it."""

from types import SimpleNamespace
from typing import Any

import pytest

from bennu.engine import recovery
from bennu.engine.recovery import finish_pending_operations, finish_start
from bennu.lifecycle.death import Requester, Verb
from bennu.lifecycle.life_model import Life, PendingOperation, Policy
from bennu.lifecycle.restart import RestartMode, RestartPolicy
from bennu.lifecycle.status import State

RESTART = PendingOperation(verb=Verb.RESTART, by=Requester("client"))


def a_container(name: str, *, auto_remove: bool) -> Any:
    policy = Policy(restart=RestartPolicy(RestartMode.NO), auto_remove=auto_remove)
    record = SimpleNamespace(life=Life(state=State.EXITED))
    return SimpleNamespace(id=name, record=record, policy=policy, finish_pending=lambda: None)


async def test_a_restart_asked_for_while_it_tidies_up_is_not_done_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    old, web = a_container("old", auto_remove=True), a_container("web", auto_remove=False)
    removed = []

    async def auto_remove(services: Any, container: Any) -> None:
        removed.append(container.id)
        web.record.life = Life(state=State.EXITED, pending=RESTART)  # a client's, on record as it begins

    begun: list[str] = []
    tasks = SimpleNamespace(create_task=lambda coroutine, name: begun.append(name))
    services: Any = SimpleNamespace(tasks=tasks)
    monkeypatch.setattr(recovery, "auto_remove", auto_remove)
    await finish_start(services, finish_pending_operations(services, [old, web]), [])
    assert (removed, begun) == (["old"], [])
