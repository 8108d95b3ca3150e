"""Who asked for an end, what it was, and how to tell it. Pure."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Asker:
    """Who asked: kind is client, health, update, daemon or nobody; the rest is known of clients on the unix socket."""

    kind: str
    uid: int | None = None
    pid: int | None = None
    command: str = ""

    @classmethod
    def daemon(cls, why: str) -> "Asker":
        return cls("daemon", command=why)
