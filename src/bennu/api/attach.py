"""`/containers/{id}/attach`: a client joins a container's standard streams, before or during a run."""

from typing import Final

from aiohttp import web

from bennu.api.detach import parse_keys
from bennu.api.errors import status_of
from bennu.api.query import flag, text
from bennu.api.sessions import Ended, Terms, join
from bennu.api.streams import Hijacked, ends_with_client, refuse_as_text, stream_type, take_over
from bennu.engine.container import Container
from bennu.engine.engine import Engine
from bennu.engine.waits import WaitCondition
from bennu.errors import BennuError

REASONS: Final = {400: "Bad Request", 404: "Not Found", 409: "Conflict", 501: "Not Implemented"}


def routes(engine: Engine) -> list[web.RouteDef]:
    api = Attach(engine)
    return [web.route("POST", "/containers/{id}/attach", api.attach)]


class Attach:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @ends_with_client
    async def attach(self, request: web.Request) -> web.StreamResponse:
        """Errors come as raw text: that is how clients of this call read them."""
        try:
            container = self._engine.find(request.match_info["id"])
            terms = read_terms(request, container)
            attachment = await container.attach() if flag(request, "stream") else None
        except BennuError as error:
            status = status_of(error)
            return await refuse_as_text(request, f"{status} {REASONS.get(status, 'Internal Server Error')}", str(error))
        stopped = container.wait(WaitCondition.NOT_RUNNING)

        async def work(connection: Hijacked) -> None:
            if attachment is None:
                return
            ended = await join(connection, attachment, terms)
            if ended is Ended.DETACHED:
                await container.publish("detach")
            if ended is Ended.OUTPUT and container.record.config.stdin_once and not container.record.config.tty:
                await stopped

        try:
            return await take_over(request, stream_type(request, multiplexed=terms.framed), work)
        finally:
            stopped.cancel()
            if attachment is not None:
                container.detach(attachment)


def read_terms(request: web.Request, container: Container) -> Terms:
    """Raises: InvalidParameter for bad detach keys."""
    config = container.record.config
    keys = parse_keys(text(request, "detachKeys"))
    return Terms(
        framed=not config.tty,
        stdin=flag(request, "stdin") and config.open_stdin,
        stdout=flag(request, "stdout"),
        stderr=flag(request, "stderr"),
        keys=keys if config.tty else None,
        leave_at_end_of_input=config.tty or not config.stdin_once,
    )
