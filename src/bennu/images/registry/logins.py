"""Logins as clients send them. Pure."""

import base64
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from bennu.decoding import decode
from bennu.errors import InvalidParameter
from bennu.images.reference import HUB, Reference

HUB_KEY: Final = "https://index.docker.io/v1/"


class Auth(msgspec.Struct):
    """A login, as clients send it in `X-Registry-Auth` and to `/auth`."""

    username: str = ""
    password: str = ""
    auth: str = ""
    identitytoken: str = ""
    registrytoken: str = ""
    serveraddress: str = ""

    @property
    def is_empty(self) -> bool:
        return not (self.username or self.auth or self.identitytoken or self.registrytoken)

    @property
    def pair(self) -> tuple[str, str]:
        """Answer name and password; some clients send only the two joined and encoded, as their files have them."""
        if self.username or not self.auth:
            return self.username, self.password
        try:
            name, _, password = base64.b64decode(self.auth).decode().partition(":")
        except ValueError:
            return "", ""
        return name, password.strip("\0")

    def __repr__(self) -> str:
        """Keep secrets out of every log and traceback."""
        return f"Auth(serveraddress={self.serveraddress!r}, …)"


def parse_auth(header: str) -> Auth:
    """Read `X-Registry-Auth`, base64 of JSON; a broken one is no login, as for dockerd."""
    return _decode_header(header, Auth) or Auth()


def parse_logins(header: str) -> dict[str, Auth]:
    """Read `X-Registry-Config`: the logins of a build, by registry."""
    return _decode_header(header, dict[str, Auth]) or {}


def login_for(reference: Reference, logins: Mapping[str, Auth]) -> Auth:
    """Choose the login of a build that is meant for this image's registry."""
    keys = (HUB_KEY, HUB) if reference.domain == HUB else (reference.domain,)
    return next((logins[key] for key in keys if key in logins), Auth())


def _decode_header(header: str, shape: Any) -> Any:
    try:
        raw = base64.urlsafe_b64decode(header.replace("+", "-").replace("/", "_") + "==")
        return decode(raw, shape) if raw else None
    except (ValueError, InvalidParameter):
        return None
