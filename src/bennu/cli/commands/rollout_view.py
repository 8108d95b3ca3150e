"""The picture that `bennu rollout watch` draws on a terminal, and the words it shares with `status`.

    web  updating  revision 1 → 2  12 s
    ■■■■■■■■■■▣▣▣▣▣□□□□□  2 of 4 slots serve revision 2

    SLOT  TASK          REVISION  STATE               TRAFFIC
    1     l27prkk2yg5p  2         running             serves, 3 connections
    2     mehikpaswcvz  1         running → shutdown  drains 2 connections, 7.4 s at most
    2     9gm5oh3rrhlm  2         ready
    …
    next  the delay after slot 1 is not over (1.4 s left)

Lines keep their places from look to look and are cut, never wrapped. Where there are more tasks than lines, those that
only serve are told as a number.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

Json = dict[str, Any]
UNDER_WAY: Final = ("updating", "rollback_started")
STRIP: Final = 40  # cells of the bar
HEADERS: Final = ("SLOT", "TASK", "REVISION", "STATE", "HEALTH", "TRAFFIC", "ABOUT")
STATE_COLOURS: Final[Mapping[str, str]] = {
    "updating": "cyan",
    "completed": "green",
    "rollback_started": "yellow",
    "rollback_completed": "yellow",
    "paused": "red",
    "rollback_paused": "red",
}
LONG_ID: Final = re.compile(r"\b[0-9a-z]{25}\b", re.ASCII)
WELL_KNOWN: Final = ("update in progress", "update completed", "rollback completed")  # said by the state already


# --- words ------------------------------------------------------------------------------------------------------------


def headline(found: Json) -> list[str]:
    kind = "" if found["Strategy"] == "rolling" else f" ({found['Strategy']})"
    lines = [f"{found['Name']}{kind}, revision {found['Revision']}: {found['State'] or 'no rollout'}"]
    if found["Message"]:
        lines[0] += f": {found['Message']}"
    return [*lines, *stage_words(found)]


def stage_words(found: Json) -> list[str]:
    """Say how far a canary or blue/green rollout is, and what its analysis says."""
    lines = []
    if found["State"] in (*UNDER_WAY, "paused") and found["Steps"] and not found["Promoted"]:
        lines.append(f"step {min(found['Step'], found['Steps'])} of {found['Steps']}")
    if found["Switched"] and found["State"] in UNDER_WAY:
        lines.append("the traffic goes to the new version")
    if found["Verdict"]:
        lines.append(f"verdict: {found['Verdict']}")
    return lines


def cells(task: Json) -> tuple[str, ...]:
    return (
        place(task),
        task["ID"][:12],
        "" if task["Revision"] is None else str(task["Revision"]),
        state_words(task),
        task["Health"],
        traffic_words(task),
        task["Err"] or shorten_ids(task["Why"]),
    )


def place(task: Json) -> str:
    return str(task["Slot"] or task["NodeID"][:12])


def state_words(task: Json) -> str:
    if task["State"] == task["DesiredState"] or task["DesiredState"] in ("running", "ready"):
        return str(task["State"])
    return f"{task['State']} → {task['DesiredState']}"


def traffic_words(task: Json) -> str:
    open_now = task["Connections"]
    many = "" if not open_now else "1 connection" if open_now == 1 else f"{open_now} connections"
    if task["DrainLeft"] is not None:
        return f"drains {many}, {task['DrainLeft'] / 1e9:.1f} s at most" if many else "drained"
    if task["InBalancer"]:
        return f"serves, {many}" if many else "serves"
    return "out" if task["State"] == "running" and open_now is not None else ""


def task_words(task: Json) -> str:
    """Describe a task for a line of a log, without what changes at every look."""
    traffic = "drains" if task["DrainLeft"] is not None else "serves" if task["InBalancer"] else ""
    words = [f"revision {task['Revision']}", state_words(task), task["Health"], traffic, task["Err"]]
    return ", ".join(word for word in words if word)


def next_lines(found: Json) -> list[str]:
    """Say what stands in the way and until when, the soonest first; the same of several slots is said once."""
    subjects: dict[tuple[float, str], list[str]] = {}
    for wait in found["Waits"]:
        if wait["Reason"] == found["Message"]:
            continue  # why it is paused is said above
        left = wait["Left"]
        known = (float("inf") if left is None else left / 1e9, wait["Reason"])
        subjects.setdefault(known, []).append(wait["Subject"])
    lines = []
    for (left_s, reason), who in sorted(subjects.items(), key=lambda item: item[0][0]):
        when = "" if left_s == float("inf") else f" ({left_s:.1f} s left)"
        lines.append(shorten_ids(f"{name_all(who)}{reason}{when}"))
    return lines


def shorten_ids(words: str) -> str:
    return LONG_ID.sub(lambda found: found[0][:12], words)


def name_all(subjects: Sequence[str]) -> str:
    """Name slots: `slot 3: `, `slots 3 to 5 and 7: `; the rollout itself needs no name."""
    if list(subjects) == ["rollout"]:
        return ""
    if len(subjects) == 1:
        return f"{subjects[0]}: "
    kinds = {subject.partition(" ")[0] for subject in subjects}
    if len(kinds) > 1:
        return f"{', '.join(subjects)}: "
    names = join_ranges([subject.partition(" ")[2] for subject in subjects])
    if len(names) == 1:
        return f"{kinds.pop()}s {names[0]}: "
    return f"{kinds.pop()}s {', '.join(names[:-1])} and {names[-1]}: "


def join_ranges(names: Sequence[str]) -> list[str]:
    """Write three numbers or more in a row as `3 to 5`; other names as they are."""
    runs: list[list[str]] = []
    for name in names:
        last = runs[-1][-1] if runs else ""
        if last.isdecimal() and name.isdecimal() and int(name) == int(last) + 1:
            runs[-1].append(name)
        else:
            runs.append([name])
    return [text for run in runs for text in ([f"{run[0]} to {run[-1]}"] if len(run) > 2 else run)]


# --- the picture ------------------------------------------------------------------------------------------------------


def picture(found: Json, *, width: int, height: int) -> "RenderableType":
    """Draw the rollout into `width` columns and `height` lines."""
    from rich.console import Group
    from rich.text import Text

    waits = next_lines(found)[:4]
    warns = "red" if "paused" in found["State"] else ""
    top = [title(found), *(Text(words, warns) for words in notes(found)), bar(found)]
    used = sum(-(-len(words) // width) for words in notes(found)) + 2 + len(waits) + 3
    bottom = [
        Text.assemble(("next  ", "bold") if number == 0 else "      ", (words, "dim"), **UNWRAPPED)
        for number, words in enumerate(waits)
    ]
    return Group(*top, Text(), *rows(found, width, max(3, height - used)), Text(), *bottom)


UNWRAPPED: Final[Any] = {"no_wrap": True, "overflow": "ellipsis"}


def line(words: str, style: str = "") -> "Text":
    from rich.text import Text

    return Text(words, style=style, **UNWRAPPED)


def title(found: Json) -> "Text":
    from rich.text import Text

    state = found["State"] or "no rollout"
    before, now = found["PreviousRevision"], found["Revision"]
    revisions = f"revision {now}" if before is None else f"revision {before} → {now}"
    parts = [(found["Name"], "bold"), (state.replace("_", " "), STATE_COLOURS.get(state, "dim")), (revisions, "")]
    if found["Strategy"] != "rolling":
        parts.append((found["Strategy"], ""))
    if taken := taken_words(found):
        parts.append((taken, "dim"))
    return Text("  ", **UNWRAPPED).join(Text(words, style) for words, style in parts)


def notes(found: Json) -> list[str]:
    message = [found["Message"]] if found["Message"] and found["Message"] not in WELL_KNOWN else []
    return [*message, *stage_words(found)]


def taken_words(found: Json) -> str:
    if not found["StartedAt"]:
        return ""
    end = datetime.fromisoformat(found["CompletedAt"]) if found["CompletedAt"] else datetime.now(UTC)
    seconds = max(0, int((end - datetime.fromisoformat(found["StartedAt"])).total_seconds()))
    minutes, seconds = divmod(seconds, 60)
    return f"{minutes} min {seconds} s" if minutes else f"{seconds} s"


def bar(found: Json) -> "Text":
    """Draw a cell a slot as far as they fit: green serves the new revision, yellow is in work, red failed."""
    from rich.text import Text

    looks = [slot_colour(tasks, found) for tasks in by_slot(found["Tasks"])]
    done, total = looks.count("green"), len(looks)
    size = min(STRIP, total * max(1, STRIP // max(1, total)))
    strip = Text(**UNWRAPPED)
    for cell in range(size):
        colour = looks[cell * total // size]
        strip.append({"green": "■", "": "□"}.get(colour, "▣"), colour or "dim")
    strip.append(f"  {done} of {total} slots serve revision {found['Revision']}")
    return strip


def by_slot(tasks: Iterable[Json]) -> list[list[Json]]:
    slots: dict[str, list[Json]] = {}
    for task in tasks:
        slots.setdefault(place(task), []).append(task)
    return list(slots.values())


def slot_colour(tasks: Sequence[Json], found: Json) -> str:
    colours = {colour(task, found) for task in tasks}
    if len(colours - {"dim"}) > 1 or not colours - {"dim"}:
        return "yellow"
    return (colours - {"dim"}).pop()


def colour(task: Json, found: Json) -> str:
    """Choose a task's colour.

    Green: it serves the new revision; none: it still serves another; dim: it is on its way out, or only kept warm.
    """
    if task["State"] in ("failed", "rejected"):
        return "red"
    if task["DesiredState"] not in ("running", "ready"):
        return "dim"
    if task["State"] != "running":
        return "yellow"
    is_new = task["Revision"] == found["Revision"]
    if traffic_words(task) == "out":  # blue/green: it is the other version's turn
        return "yellow" if is_new else "dim"
    return "green" if is_new else ""


def is_moving(task: Json) -> bool:
    return bool(task["State"] != "running" or task["DesiredState"] != "running")


def choose(found: Json, room: int) -> list[Json]:
    """Choose the tasks to show where not all fit: those that change, then those of the new revision."""
    order = sorted(found["Tasks"], key=lambda task: (not is_moving(task), task["Revision"] != found["Revision"]))
    chosen = {task["ID"] for task in order[:room]}
    return [task for task in found["Tasks"] if task["ID"] in chosen]


def rows(found: Json, width: int, room: int) -> "list[RenderableType]":
    from rich.table import Table

    tasks = found["Tasks"]
    shown = choose(found, room if len(tasks) < room else room - 2)
    wide = width >= 100
    wanted = [name for name in HEADERS if name != "HEALTH" or any(task["Health"] for task in tasks)]
    wanted = [name for name in wanted if name != "ABOUT" or wide]
    grid = Table(box=None, pad_edge=False, header_style="bold", expand=True)
    for name in wanted:
        grid.add_column(name, no_wrap=True, overflow="ellipsis", ratio=1 if name == wanted[-1] else None)
    for task in shown:
        named = dict(zip(HEADERS, cells(task), strict=True))
        if not is_moving(task) and not task["Err"]:
            named["ABOUT"] = ""  # why it was made matters no more
        grid.add_row(*(named[name] for name in wanted), style=colour(task, found))
    hidden = len(tasks) - len(shown)
    return [grid, line(f"… and {hidden} more tasks", "dim")] if hidden else [grid]
