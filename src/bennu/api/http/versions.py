"""The API versions spoken here, and the refusal of others (moby `api/server/middleware/version.go`)."""

from typing import Final

from bennu import __version__
from bennu.errors import InvalidParameter

API_VERSION: Final = "1.51"
MIN_API_VERSION: Final = "1.24"
SERVER: Final = f"Bennu/{__version__} (linux)"


def parse_version(version: str) -> int:
    """Answer the minor number of a version. Raises: InvalidParameter when it is not spoken here."""
    asked, newest, oldest = (_numbers(text) for text in (version, API_VERSION, MIN_API_VERSION))
    if asked > newest:
        raise InvalidParameter(f"client version {version} is too new. Maximum supported API version is {API_VERSION}")
    if asked < oldest:
        raise InvalidParameter(
            f"client version {version} is too old. Minimum supported API version is {MIN_API_VERSION}, "
            "please upgrade your client to a newer version"
        )
    return asked[1]


def _numbers(version: str) -> tuple[int, ...]:
    """Split a version as dockerd compares it: missing parts are 0."""
    major, minor, *rest = [int(part or 0) for part in [*version[:40].split("."), ""]]
    return (major, minor, *rest) if any(rest) else (major, minor)
