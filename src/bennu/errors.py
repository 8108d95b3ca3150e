"""What can go wrong, named by what the caller should do next.

    BennuError               something broke here (HTTP 500)
    ├── NotModified          things already are as asked (304)
    ├── InvalidParameter     the request itself is wrong (400)
    ├── Unauthorized         the login is wrong, or there is none (401)
    ├── Forbidden            understood and refused (403)
    ├── NotFound             no such object (404)
    ├── Conflict             not in the present state of things (409)
    ├── NotImplementedHere   a known feature that is not here; the message names it (501)
    └── Unavailable          try again later or elsewhere (503)

The mapping to HTTP lives in `api/http/errors.py` and nowhere else. Clients are shown the messages word for word.
"""


class BennuError(Exception):
    """Root of all errors of ours; raised itself when none of the kinds below fits (a plain 500)."""


class NotModified(BennuError):
    """The object already is in the state asked for."""


class InvalidParameter(BennuError):
    """The request is malformed or asks for the impossible."""


class Unauthorized(BennuError):
    """The login is wrong, or is missing where one is needed."""


class Forbidden(BennuError):
    """The request is understood and refused."""


class NotFound(BennuError):
    """The object named does not exist."""


class Conflict(BennuError):
    """The object's present state forbids the operation."""


class NotImplementedHere(BennuError):
    """A feature of the API that is not here yet; the message names it."""


class Unavailable(BennuError):
    """Cannot be served at the moment."""
