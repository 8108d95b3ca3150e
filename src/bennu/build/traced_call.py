"""A build that `POST /build?version=2` asks for. Values alone: what serves it is loaded when the first comes."""

from collections.abc import AsyncIterable, Mapping, Sequence
from dataclasses import dataclass

from bennu.build.request import SolveRequest
from bennu.images.reference import Reference
from bennu.images.registry.logins import Auth


@dataclass(frozen=True, slots=True)
class TracedCall:
    """A build of the second way. `body`: what came with the request; None: the context is the session's."""

    solving: SolveRequest
    tags: Sequence[Reference]
    session: str
    build_id: str
    logins: Mapping[str, Auth]
    body: AsyncIterable[bytes] | None
    is_uploaded: bool = False  # the context comes with another request
