"""Reads image references as Docker does: `[domain/]path[:tag][@digest]`, an id, or the beginning of one. Pure.

The grammar is that of github.com/distribution/reference `normalize.go`; pinned by `test_reference.py`.
"""

import re
from dataclasses import dataclass
from typing import Final

from bennu.errors import InvalidParameter

HUB: Final = "docker.io"
OFFICIAL: Final = "library"
DEFAULT_TAG: Final = "latest"
MAX_NAME: Final = 255
COMPONENT: Final = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
PATH: Final = re.compile(rf"{COMPONENT}(?:/{COMPONENT})*\Z", re.ASCII)
DOMAIN_PART: Final = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
DOMAIN: Final = re.compile(rf"(?:{DOMAIN_PART}(?:\.{DOMAIN_PART})*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?\Z", re.ASCII)
TAG: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}\Z", re.ASCII)
DIGEST: Final = re.compile(r"[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,}\Z", re.ASCII)
SHA256: Final = re.compile(r"sha256:[0-9a-f]{64}\Z", re.ASCII)
HEX64: Final = re.compile(r"[0-9a-f]{64}\Z", re.ASCII)
BAD_FORMAT: Final = "invalid reference format"


@dataclass(frozen=True, slots=True)
class Reference:
    """A name in full: domain and path are always there; tag and digest only when given."""

    domain: str
    path: str
    tag: str = ""
    digest: str = ""

    @property
    def familiar_name(self) -> str:
        """The name as people write it: `busybox`, `user/app`, `registry:5000/app`."""
        if self.domain != HUB:
            return f"{self.domain}/{self.path}"
        return self.path.removeprefix(f"{OFFICIAL}/") if self.path.count("/") == 1 else self.path

    @property
    def full_name(self) -> str:
        """Answer the name with its domain, without tag and digest."""
        return f"{self.domain}/{self.path}"

    def tagged(self) -> "Reference":
        """Answer the reference with `latest` when it has neither tag nor digest."""
        if self.tag or self.digest:
            return self
        return Reference(self.domain, self.path, DEFAULT_TAG)

    def __str__(self) -> str:
        """Write the familiar form."""
        tag = f":{self.tag}" if self.tag else ""
        return self.familiar_name + tag + (f"@{self.digest}" if self.digest else "")


def parse_reference(text: str) -> Reference:
    """Read a name with or without tag and digest. Raises: InvalidParameter in Docker's words."""
    if HEX64.match(text):
        raise InvalidParameter(f"invalid repository name ({text}), cannot specify 64-byte hexadecimal strings")
    domain, rest = _split_domain(text)
    written = rest.partition(":")[0]
    if written != written.lower():
        raise InvalidParameter(f"{BAD_FORMAT}: repository name ({written}) must be lowercase")
    name, at, digest = rest.partition("@")
    if at and not SHA256.match(digest):
        raise InvalidParameter(f"{BAD_FORMAT}" if not DIGEST.match(digest) else "unsupported digest algorithm")
    path, colon, tag = name.partition(":")
    if not PATH.match(path) or not DOMAIN.match(domain) or (colon and not TAG.match(tag)):
        raise InvalidParameter(BAD_FORMAT)
    if len(path) > MAX_NAME:
        raise InvalidParameter(f"repository name must not be more than {MAX_NAME} characters")
    return Reference(domain, path, tag, digest)


def _split_domain(text: str) -> tuple[str, str]:
    """Split off the registry; without one it is the hub, where a lone name is an official image (`library/`)."""
    first, slash, rest = text.partition("/")
    is_domain = slash and (any(mark in first for mark in ".:[") or first == "localhost" or first.lower() != first)
    domain, remainder = (first, rest) if is_domain else (HUB, text)
    if domain == "index.docker.io":
        domain = HUB
    if domain == HUB and "/" not in remainder.partition("@")[0]:
        remainder = f"{OFFICIAL}/{remainder}"
    return domain, remainder
