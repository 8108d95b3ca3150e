"""Walking a tree that somebody else has made: without recursion, without following links."""

import errno
import os
import stat
import time
from collections.abc import Iterator
from typing import Final

MAX_LINKS: Final = 40  # the kernel's limit
MAX_BUILD_LINKS: Final = 255  # BuildKit's
LEASE_LOOK_EVERY_S: Final = 0.05
LEASE_LOOKS: Final = 1000  # the kernel takes a lease away after 45 s


def walk(root: str) -> Iterator[tuple[str, str, os.stat_result]]:
    """Walk through everything below the folder `root`, a folder before its contents, each folder in order of the names.

    Yields a name relative to `root`, the name in the folder that this process stands in until the next is asked for,
    and its status. So no path is ever too long, however deep the tree. What vanishes meanwhile is left out; moving
    folders meanwhile makes the answer odd, and cannot lead out of the process's root. Raises: OSError.
    """
    os.chdir(root)
    folders = [("", _entries())]
    while folders:
        prefix, entries = folders[-1]
        if not entries:
            folders.pop()
            if folders:
                os.chdir("..")
            continue
        entry = entries.pop()
        try:
            seen = os.lstat(entry)
        except FileNotFoundError:
            continue
        yield prefix + entry, entry, seen
        if stat.S_ISDIR(seen.st_mode) and _step_into(entry):
            folders.append((f"{prefix}{entry}/", _entries()))


def _entries() -> list[str]:
    return sorted(os.listdir(), reverse=True)


def _step_into(entry: str) -> bool:
    """Enter a folder; answer False if it is none any more."""
    try:
        folder = os.open(entry, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        if error.errno == errno.ELOOP:
            return False
        raise
    os.fchdir(folder)
    os.close(folder)
    return True


def open_file(path: str) -> int:
    """Open a regular file and answer its descriptor; anything else there is neither held open nor waited for.

    The holder of a lease on it is given the time that the kernel gives him. Raises: FileNotFoundError for what is no
    regular file; OSError.
    """
    for _ in range(LEASE_LOOKS):
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
            break
        except BlockingIOError:
            time.sleep(LEASE_LOOK_EVERY_S)
    else:
        raise TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT), path)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
    return descriptor


def printable(name: str) -> str:
    """Make a name fit for JSON, which cannot hold bytes that are no text: they are replaced as Go replaces them."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def resolve(root: str, target: str) -> str | None:
    """Resolve `target` with the folder `root` as root, to a path below it; None if it leads nowhere."""
    place: list[str] = []
    ahead = _parts_ahead(target)
    links = 0
    while ahead:
        part = ahead.pop()
        if part == "..":
            place = place[:-1]
            continue
        path = os.path.join(root, *place, part)
        try:
            is_link = stat.S_ISLNK(os.lstat(path).st_mode)
        except OSError:  # not there, below a file, or a name that is too long to be there
            return None
        if not is_link:
            place.append(part)
            continue
        links += 1
        if links > MAX_LINKS:
            return None
        leads = os.readlink(path)
        place = [] if leads.startswith("/") else place
        ahead += _parts_ahead(leads)
    return "/".join(place)


def place_of(path: str, root: str = "") -> str:
    """Resolve a path whose last parts may not be there yet, with the folder `root` as root; "" is this process's.

    Answers a path without links, which begins with a slash and is to be read behind `root`. Raises: OSError, also
    NotADirectoryError for what is below a file.
    """
    place: list[str] = []
    ahead = _parts_ahead(path)
    links = 0
    while ahead:
        part = ahead.pop()
        if part == "..":
            place = place[:-1]
            continue
        here = "/" + "/".join((*place, part))
        try:
            leads = os.readlink(root + here)
        except FileNotFoundError:
            place.append(part)
            continue
        except OSError as error:
            if error.errno != errno.EINVAL:  # it is no link
                raise OSError(error.errno, error.strerror, f"lstat {here}") from None
            place.append(part)
            continue
        links += 1
        if links > MAX_BUILD_LINKS:
            raise OSError(errno.ELOOP, "too many links", path)
        place = [] if leads.startswith("/") else place
        ahead += _parts_ahead(leads)
    return "/" + "/".join(place)


def _parts_ahead(path: str) -> list[str]:
    return [part for part in reversed(path.split("/")) if part not in ("", ".")]
