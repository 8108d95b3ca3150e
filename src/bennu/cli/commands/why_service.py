"""why, of a service or a task: each slot's lives, and what the orchestrator decided."""

from typing import Any

from bennu.cli.client import ApiClient, segment
from bennu.cli.failure import ApiFailure
from bennu.cli.output import say, shorten_id

ENDING = ("complete", "shutdown", "remove")


def find_story(client: ApiClient, name: str) -> dict[str, Any] | None:
    """The story of a service of that name, else of a task; None if there is neither."""
    for kind in ("services", "tasks"):
        try:
            found: dict[str, Any] = client.json("GET", f"/bennu/v1/{kind}/{segment(name)}/why")
        except ApiFailure:
            continue
        return found
    return None


def tell(story: dict[str, Any]) -> None:
    lines = [f"{story['Service']}: {reason}" for reason in story["Waits"]]
    for slot in story["Slots"]:
        lines.append(slot["Name"])
        for task in slot["Tasks"]:
            lines += [f"  {line}" for line in task_lines(task)]
    if story["Decisions"]:
        lines += ["", f"Decisions about {story['Service']}:"]
        lines += [f"  {decision['Time'][:19]}Z  {decision['Reason']}" for decision in story["Decisions"]]
    say("\n".join(lines) if lines else f"{story['Service']} has no tasks")


def task_lines(task: dict[str, Any]) -> list[str]:
    lines = [f"{shorten_id(task['ID'])}  {task['State']} since {task['Since'][:19]}Z  {task['Image']}"]
    if task["Err"]:
        lines.append(f"    {'waits: ' if task['State'] in ('new', 'pending') else ''}{task['Err']}")
    if task.get("Awaits"):
        lines.append(f"    waits: {task['Awaits']}")
    if task["Made"]:
        lines.append(f"    made because {task['Made']}")
    if task["Ended"]:
        word = "to end" if task["Desired"] in ENDING else "let run"
        lines.append(f"    {word} because {task['Ended']}")
    if task["Death"]:
        lines += [f"    {sentence}" for sentence in task["Death"]["Story"][:2]]
        lines += [f"    Hint: {hint}" for hint in task["Death"]["Hints"]]
    return lines
