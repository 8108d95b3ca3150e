"""Decides who a process runs as: `name|uid[:group|gid]`, looked up in the container's passwd and group. Pure.

As github.com/moby/sys/user `user.go`; pinned by `test_users.py`.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from bennu.runtime.failures import RuntimeFailure

MAX_ID: Final = 2**31 - 1
MAX_DIGITS: Final = 10


@dataclass(frozen=True, slots=True)
class User:
    """Ids of a user; `groups` are the supplementary ones, the primary group first."""

    uid: int = 0
    gid: int = 0
    groups: tuple[int, ...] = (0,)
    home: str = "/"


@dataclass(frozen=True, slots=True)
class PasswdEntry:
    name: str
    uid: int
    gid: int
    home: str


@dataclass(frozen=True, slots=True)
class GroupEntry:
    name: str
    gid: int
    members: tuple[str, ...]


def find_user(user: str, group_add: Sequence[str], passwd: str, group: str) -> User:
    """Look a user up in the texts of a container's passwd and group files. Pure.

    Raises: RuntimeFailure (128) in dockerd's words.
    """
    wanted, _, wanted_group = user.partition(":")
    wanted = wanted or "0"
    entries, groups = list(parse_passwd(passwd)), list(parse_group(group))
    entry = next((one for one in entries if wanted in (one.name, str(one.uid))), None)
    if entry is None:
        if not wanted.isdecimal():
            raise RuntimeFailure(f"unable to find user {wanted}: no matching entries in passwd file", 128)
        entry = PasswdEntry("", _checked_id(wanted), 0, "/")
    gid, supplementary = entry.gid, []
    if wanted_group:
        gid = _find_group(wanted_group, groups)
    elif entry.name:
        supplementary = [one.gid for one in groups if entry.name in one.members]
    supplementary += [_find_group(name, groups) for name in group_add]
    return User(entry.uid, gid, tuple(dict.fromkeys((gid, *supplementary))), entry.home or "/")


def _find_group(wanted: str, groups: Iterable[GroupEntry]) -> int:
    for one in groups:
        if wanted in (one.name, str(one.gid)):
            return one.gid
    if wanted.isdecimal():
        return _checked_id(wanted)
    raise RuntimeFailure(f"unable to find group {wanted}: no matching entries in group file", 128)


def _checked_id(text: str) -> int:
    if len(text) > MAX_DIGITS or int(text) > MAX_ID:
        raise RuntimeFailure(f"uids and gids must be in range 0-{MAX_ID}", 128)
    return int(text)


def parse_passwd(text: str) -> Iterable[PasswdEntry]:
    """Yield the entries that make sense; others are skipped, as the C library does."""
    for fields in _records(text, 7):
        if fields[2].isdecimal() and fields[3].isdecimal():
            yield PasswdEntry(fields[0], int(fields[2]), int(fields[3]), fields[5])


def parse_group(text: str) -> Iterable[GroupEntry]:
    for fields in _records(text, 4):
        if fields[2].isdecimal():
            members = tuple(name for name in fields[3].split(",") if name)
            yield GroupEntry(fields[0], int(fields[2]), members)


def _records(text: str, width: int) -> Iterable[list[str]]:
    for line in text.splitlines():
        line = line.strip()
        if line and not line.startswith("#"):
            fields = line.split(":")
            yield fields + [""] * (width - len(fields))
