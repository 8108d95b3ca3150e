"""`/bennu/v1/services/{id}/rollout` and its neighbours: how an update stands, and what a person does to it."""

from typing import Any

from aiohttp import web

from bennu.api.http.query import text
from bennu.api.http.responses import json_response, no_content_response
from bennu.api.shapes.instants import rfc3339
from bennu.cluster import Cluster
from bennu.cluster.convert import container_spec, mode_json
from bennu.cluster.rollouts import VERBS, Rollouts, Sight, Waiting
from bennu.cluster.strategy import name_of
from bennu.cluster.tables import ServiceRow
from bennu.errors import InvalidParameter
from bennu.orchestration.model.config import config_in_force, strategy_in_force
from bennu.orchestration.model.nouns import BlueGreenRun, CanaryRun, Revision
from bennu.orchestration.model.spec import Canary

Json = dict[str, Any]


def routes(cluster: Cluster) -> list[web.RouteDef]:
    api = RolloutRoutes(Rollouts(cluster))
    return [
        web.route("GET", "/bennu/v1/services/{id}/rollout", api.status),
        *(web.route("POST", f"/bennu/v1/services/{{id}}/rollout/{verb}", api.verb(verb)) for verb in VERBS),
        web.route("GET", "/bennu/v1/services/{id}/history", api.history),
        web.route("POST", "/bennu/v1/services/{id}/rollback", api.rollback),
    ]


class RolloutRoutes:
    def __init__(self, rollouts: Rollouts) -> None:
        self._rollouts = rollouts

    async def status(self, request: web.Request) -> web.Response:
        row = self._rollouts.find(request.match_info["id"])
        return json_response(rollout_json(row, await self._rollouts.look(row), self._rollouts.waits(row)))

    def verb(self, name: str) -> Any:
        async def do(request: web.Request) -> web.Response:
            await self._rollouts.do(request.match_info["id"], name)
            return no_content_response()

        return do

    async def history(self, request: web.Request) -> web.Response:
        """List the revisions, newest first."""
        row = self._rollouts.find(request.match_info["id"])
        revisions = row.service.revisions
        return json_response([revision_json(one, is_current=one is revisions[-1]) for one in reversed(revisions)])

    async def rollback(self, request: web.Request) -> web.Response:
        wanted = text(request, "to")
        if not wanted.isdecimal() or len(wanted) > 9:
            raise InvalidParameter(f"to={wanted[:40]} is not the number of a revision")
        await self._rollouts.roll_back_to(request.match_info["id"], int(wanted))
        return no_content_response()


def rollout_json(row: ServiceRow, sights: list[Sight], waits: list[Waiting]) -> Json:
    """Write a service's rollout as the API gives it: `Revision` is the one in force, `Waits` say what is next and when.

    `Left` of a wait is in ns; null: it ends with a change. `DrainLeft` of a task is in ns; null: it is not drained.
    """
    service = row.service
    status, rollout, strategy = service.update_status, service.rollout, strategy_in_force(service)
    watched = rollout if isinstance(rollout, CanaryRun | BlueGreenRun) else None
    return {
        "ServiceID": row.id,
        "Name": row.name,
        "Strategy": name_of(service.spec.strategy),
        "Order": config_in_force(service).order.value,
        "Revision": service.revisions[-1].number if service.revisions else 1,
        "PreviousRevision": service.previous.number if service.previous else None,
        "State": status.state.value if status else "",
        "Message": status.message if status else "",
        "StartedAt": rfc3339(status.started_at_ns) if status and status.started_at_ns else "",
        "CompletedAt": rfc3339(status.completed_at_ns) if status and status.completed_at_ns else "",
        "Step": rollout.step + 1 if isinstance(rollout, CanaryRun) else 0,
        "Steps": len(strategy.steps) if isinstance(strategy, Canary) else 0,
        "Switched": isinstance(rollout, BlueGreenRun) and rollout.switched_at_ns is not None,
        "Promoted": watched is not None and watched.promoted,
        "Outdated": rollout.total if rollout else 0,
        "Failed": len(rollout.failed) if rollout else 0,
        "Verdict": watched.verdict if watched else "",
        "Tasks": [sight_json(sight) for sight in sights],
        "Waits": [{"Subject": wait.subject, "Reason": wait.reason, "Left": wait.left_ns} for wait in waits],
        "Reasons": [{"At": rfc3339(one.at_ns), "Reason": one.text} for one in row.reasons],
    }


def sight_json(sight: Sight) -> Json:
    task = sight.row.task
    return {
        "ID": task.id,
        "Slot": task.slot,
        "NodeID": task.node_id or "",
        "Revision": sight.revision,
        "Image": container_spec(task.spec).image,
        "State": task.state.word,
        "DesiredState": task.desired.word,
        "Err": task.status.err,
        "Health": sight.health,
        "InBalancer": sight.in_balancer,
        "Connections": sight.connections,
        "DrainLeft": sight.drain_left_ns,
        "Why": sight.row.why_desired or sight.row.why_made,
    }


def revision_json(revision: Revision, *, is_current: bool) -> Json:
    return {
        "Revision": revision.number,
        "Current": is_current,
        "MadeAt": rfc3339(revision.made_at_ns),
        "Image": container_spec(revision.spec.task).image,
        "Mode": mode_json(revision.spec.mode),
        "Strategy": name_of(revision.spec.strategy),
    }
