"""Failures of the control layer, in the words clients match on: `rpc error: code = <Code> desc = …`."""

from typing import Final

from bennu.errors import BennuError, Conflict, InvalidParameter, NotFound, NotImplementedHere, Unavailable

NOT_MANAGER: Final = (
    'This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect this node to swarm '
    "and try again."
)
ALREADY_PART: Final = (
    'This node is already part of a swarm. Use "docker swarm leave" to leave this swarm and join another one.'
)
NOT_PART: Final = "This node is not part of a swarm"
LEAVE_LAST: Final = (
    "You are attempting to leave the swarm on a node that is participating as a manager. Removing the last manager "
    "erases all current state of the swarm. Use `--force` to ignore this message. "
)
JOIN_LATER: Final = (
    "joining a swarm is not implemented: a swarm is one node for now, the cluster of many nodes comes next"
)


def rpc(kind: type[BennuError], code: str, text: str) -> BennuError:
    return kind(f"rpc error: code = {code} desc = {text}")


def invalid(text: str) -> BennuError:
    return rpc(InvalidParameter, "InvalidArgument", text)


def precondition(text: str) -> BennuError:
    return rpc(InvalidParameter, "FailedPrecondition", text)


def unknown(text: str) -> BennuError:
    return rpc(BennuError, "Unknown", text)


def exists(text: str) -> BennuError:
    return rpc(Conflict, "AlreadyExists", text)


def unimplemented(text: str) -> BennuError:
    return rpc(NotImplementedHere, "Unimplemented", text)


def not_found(kind: str, ref: str) -> NotFound:
    return NotFound(f"{kind} {ref} not found")


def not_manager() -> Unavailable:
    return Unavailable(NOT_MANAGER)


def check_version(index: int, version: int) -> None:
    """Refuse a change by a client whose picture is not the newest. Raises: BennuError."""
    if index != version:
        raise unknown("update out of sequence")
