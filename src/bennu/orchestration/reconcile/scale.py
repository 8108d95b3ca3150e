"""The number of slots of a service, and the choice of those that go when it is scaled down.

No more than `MAX_TASKS`, whatever is stored: a wish that cannot be fulfilled must not fill the store.

Docker's order: slots with a running task first, then by number. Walking in this order, each slot is the 1st, 2nd, 3rd …
*on its node*; slots with two tasks or without a node have no such number. The lowest numbers stay. So the most loaded
node loses first, then the slots that do not run, then the highest slot number.

Before all of these goes a slot that is given up already, of which a manager that died told only one task to go: else
the next one would begin with another slot.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from bennu.orchestration.model.nouns import NodeId
from bennu.orchestration.model.spec import MAX_TASKS
from bennu.orchestration.model.states import TaskState
from bennu.orchestration.slots.slots import ReconcileContext, Slot


def bounded(context: ReconcileContext, asked: int) -> int:
    """Limit the number asked for to what is made of one service."""
    if asked > MAX_TASKS:
        context.draft.wait("service", f"{asked} tasks are asked for; no more than {MAX_TASKS} are made of a service")
    return max(0, min(asked, MAX_TASKS))


def choose_victims(slots: Sequence[Slot], count: int) -> list[Slot]:
    """Choose the `count` slots to give up."""
    unknown = len(slots) + 1
    seen: Counter[NodeId] = Counter()
    ranked: list[tuple[int, Slot]] = []
    for slot in sorted(slots, key=lambda slot: (not slot.is_running, slot.key)):
        shown = slot.live or (slot.newest,)
        node_id = shown[0].node_id if len(shown) == 1 else None
        if node_id is None:
            ranked.append((unknown, slot))
            continue
        seen[node_id] += 1
        ranked.append((seen[node_id], slot))
    ranked.sort(key=lambda pair: (_is_given_up(pair[1]), pair[0]))
    return [slot for _, slot in ranked[len(slots) - count :]]


def _is_given_up(slot: Slot) -> bool:
    """Tell whether one of the slot's tasks was told to go after the one that is still wanted had been made."""
    orders = (task.stop_ordered_at_ns or 0 for task in slot.tasks if task.desired is TaskState.REMOVE)
    return bool(slot.live) and max(orders, default=0) >= slot.live[-1].created_at_ns
