"""`/bennu/v1/…/deaths`: why containers ended, newest first. Bennu's own; `Death` is the shape."""

import time
from typing import Any

import msgspec
from aiohttp import web

from bennu.api.http.query import text
from bennu.api.http.responses import json_response, no_content_response
from bennu.api.shapes.instants import parse_moment, rfc3339
from bennu.engine.engine import Engine
from bennu.errors import NotFound
from bennu.lifecycle.death import Certificate, Decision, Oom, Requester, SentSignal
from bennu.lifecycle.death_report import hints, report_death
from bennu.lifecycle.signals import signal_name
from bennu.model import Shape


class By(Shape):
    """Who asked: `Kind` is client, health, update, daemon or nobody; `Subject` is of a certificate, "" without TLS."""

    kind: str
    uid: int | None = None
    pid: int | None = None
    command: str = ""
    subject: str = ""


class Signal(Shape):
    """`Disposition`: what the process did with it: fatal, ignored, handled, blocked or unknown."""

    time: str
    number: int
    name: str
    by: By
    verb: str
    disposition: str


class OutOfMemory(Shape):
    kills: int
    limit_bytes: int
    peak_bytes: int
    main_process: bool


class HealthProbeShape(Shape):
    end: str
    exit_code: int
    output: str


class Followed(Shape):
    """`Action` is restart, stay or remove; `NextTry` is empty when there is none."""

    action: str
    reason: str
    next_try: str = ""


class Death(Shape):
    """One certificate. `ExitCode` null: nobody knows. Durations in ns, instants in RFC 3339, "" = never."""

    container_id: str = msgspec.field(name="ContainerID")
    name: str
    image: str
    life: int
    started_at: str
    finished_at: str
    lived: int
    cause: str
    exit_code: int | None
    meaning: str
    error: str
    asked_by: By
    signals: list[Signal]
    escalated: bool
    oom: OutOfMemory | None
    log_tail: list[str]
    health_check: str
    probes: list[HealthProbeShape]
    decision: Followed
    restart_policy: str
    command: list[str]
    story: list[str]
    hints: list[str]


def death_of(certificate: Certificate) -> Death:
    """Turn a certificate into what clients see, with its story and hints."""
    plain: dict[str, Any] = {
        name: getattr(certificate, name)
        for name in (
            "container_id",
            "name",
            "image",
            "life",
            "exit_code",
            "meaning",
            "error",
            "escalated",
            "health_check",
        )
    }
    return Death(
        **plain,
        started_at=rfc3339(certificate.started_at_ns) if certificate.started_at_ns else "",
        finished_at=rfc3339(certificate.finished_at_ns),
        lived=certificate.lived_ns,
        cause=certificate.cause.value,
        asked_by=_by(certificate.asked_by),
        signals=[_signal(sent) for sent in certificate.signals],
        oom=_oom(certificate.oom),
        log_tail=list(certificate.log_tail),
        probes=[HealthProbeShape(end=p.ended_at, exit_code=p.exit_code, output=p.output) for p in certificate.probes],
        decision=_followed(certificate.decision),
        restart_policy=certificate.restart_policy,
        command=list(certificate.command),
        story=report_death(certificate),
        hints=hints(certificate),
    )


def _by(requester: Requester) -> By:
    return By(
        kind=requester.kind, uid=requester.uid, pid=requester.pid, command=requester.command, subject=requester.subject
    )


def _signal(sent: SentSignal) -> Signal:
    return Signal(
        time=rfc3339(sent.at_ns),
        number=sent.number,
        name=signal_name(sent.number),
        by=_by(sent.by),
        verb=sent.verb.value,
        disposition=sent.disposition.value,
    )


def _oom(oom: Oom | None) -> OutOfMemory | None:
    if oom is None:
        return None
    return OutOfMemory(
        kills=oom.kills, limit_bytes=oom.limit_bytes, peak_bytes=oom.peak_bytes, main_process=oom.main_process
    )


def _followed(decision: Decision) -> Followed:
    due = decision.next_try_at_ns
    return Followed(action=decision.action, reason=decision.reason, next_try=rfc3339(due) if due else "")


def routes(engine: Engine) -> list[web.RouteDef]:
    api = DeathRoutes(engine)
    return [
        web.route("GET", "/bennu/v1/deaths", api.list),
        web.route("GET", "/bennu/v1/containers/{id}/deaths", api.of_container),
        web.route("POST", "/bennu/v1/containers/{id}/restart-now", api.restart_now),
    ]


class DeathRoutes:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def list(self, request: web.Request) -> web.Response:
        """List the deaths of all containers, removed ones included; `since` as for events."""
        since = text(request, "since")
        since_ns = parse_moment(since, time.time_ns()) if since else 0
        found = [death_of(certificate) async for certificate in self._engine.services.deaths.since(since_ns)]
        return json_response(found[::-1])

    async def of_container(self, request: web.Request) -> web.Response:
        """List the deaths of one container; a removed one is found by its last name or its id."""
        ref = request.match_info["id"]
        deaths = self._engine.services.deaths
        try:
            container_id = self._engine.find(ref).id
        except NotFound:
            removed = await deaths.find_removed(ref)
            if removed is None:
                raise
            container_id = removed
        return json_response([death_of(certificate) for certificate in reversed(await deaths.of(container_id))])

    async def restart_now(self, request: web.Request) -> web.Response:
        """Skip the delay of a pending restart."""
        await self._engine.find(request.match_info["id"]).restart_now()
        return no_content_response()
