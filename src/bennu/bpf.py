"""The few calls of bpf(2) that the socket load balancer needs: assembling, maps, loading, attaching to control groups.

No compiler and no library: our programs have a few dozen instructions, and the kernel's verifier checks each before it
may run. Numbers and layouts are those of linux/bpf.h, a stable interface; programs are little-endian. At the top and
not in `network/socket_lb/`, because `host/` also looks for programs that dead daemons left.
"""

import contextlib
import ctypes
import os
import platform
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

SYSCALL: Final = {"x86_64": 321, "aarch64": 280, "riscv64": 280}  # the number of bpf(2)
LICENSE: Final = b"Apache-2.0\0"

MAP_CREATE, MAP_LOOKUP, MAP_UPDATE, MAP_DELETE, MAP_NEXT_KEY, PROG_LOAD, PROG_ATTACH, PROG_DETACH = (
    0,
    1,
    2,
    3,
    4,
    5,
    8,
    9,
)
PROG_GET_FD_BY_ID, MAP_GET_FD_BY_ID, OBJ_GET_INFO_BY_FD, PROG_QUERY = 13, 14, 15, 16
HASH: Final = 1  # types of maps
ARRAY: Final = 2
NO_PREALLOC: Final = 1
CGROUP_SOCK_ADDR: Final = 18  # the type of our programs
INET4_CONNECT: Final = 10  # the hooks they are attached to
INET4_GETPEERNAME: Final = 29
ALLOW_MULTI: Final = 2
MAX_ATTACHED: Final = 64  # programs at one hook of one control group (BPF_CGROUP_MAX_PROGS)
MAX_MAPS: Final = 8  # of one program

MAP_LOOKUP_ELEM, KTIME_GET_NS, GET_SOCKET_COOKIE, BIND, GET_NETNS_COOKIE = 1, 5, 46, 64, 122  # helpers
SO_NETNS_COOKIE: Final = 71  # Linux 5.14
STACK: Final = 10  # the frame pointer; the stack is the 512 bytes below it

_libc = ctypes.CDLL(None, use_errno=True)


# --- assembling -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Word:
    code: int
    to: int = 0
    of: int = 0
    offset: int | str = 0  # of a jump: a label
    value: int = 0


class Program:
    """Instructions in order. Registers are numbers: 0 is the result, 1 to 5 arguments, 6 to 9 survive calls."""

    def __init__(self) -> None:
        self._words: list[_Word] = []
        self._labels: dict[str, int] = {}

    def label(self, name: str) -> None:
        """Name the next instruction, for jumps to it."""
        self._labels[name] = len(self._words)

    def copy(self, to: int, of: int) -> None:
        self._words.append(_Word(0xBF, to, of))

    def set(self, to: int, value: int) -> None:
        self._words.append(_Word(0xB7, to, value=value))

    def set64(self, to: int, value: int) -> None:
        self._wide(to, 0, value)

    def set_map(self, to: int, map_fd: int) -> None:
        self._wide(to, 1, map_fd)

    def _wide(self, to: int, kind: int, value: int) -> None:
        low, high = struct.unpack("=ii", struct.pack("=Q", value))
        self._words += [_Word(0x18, to, kind, value=low), _Word(0, value=high)]

    def load(self, to: int, base: int, offset: int) -> None:
        """Load 32 bits from memory."""
        self._words.append(_Word(0x61, to, base, offset))

    def load64(self, to: int, base: int, offset: int) -> None:
        self._words.append(_Word(0x79, to, base, offset))

    def store(self, base: int, offset: int, of: int) -> None:
        """Store 32 bits in memory."""
        self._words.append(_Word(0x63, base, of, offset))

    def store64(self, base: int, offset: int, of: int) -> None:
        self._words.append(_Word(0x7B, base, of, offset))

    def store_value(self, base: int, offset: int, value: int) -> None:
        """Store 32 bits in memory."""
        self._words.append(_Word(0x62, base, 0, offset, value))

    def add(self, to: int, of: int) -> None:
        self._words.append(_Word(0x0F, to, of))

    def add_value(self, to: int, value: int) -> None:
        self._words.append(_Word(0x07, to, value=value))

    def multiply(self, to: int, of: int) -> None:
        self._words.append(_Word(0x2F, to, of))

    def and_value(self, to: int, value: int) -> None:
        self._words.append(_Word(0x57, to, value=value))

    def shift_left(self, to: int, bits: int) -> None:
        self._words.append(_Word(0x67, to, value=bits))

    def shift_right(self, to: int, bits: int) -> None:
        self._words.append(_Word(0x77, to, value=bits))

    def modulo(self, to: int, of: int) -> None:
        """Divide the lower 32 bits and keep the remainder; unchanged if `of` is 0."""
        self._words.append(_Word(0x9C, to, of))

    def add_shared(self, base: int, offset: int, of: int) -> None:
        """Add to 32 bits in memory, atomically."""
        self._words.append(_Word(0xC3, base, of, offset))

    def call(self, helper: int) -> None:
        self._words.append(_Word(0x85, value=helper))

    def end(self) -> None:
        self._words.append(_Word(0x95))

    def jump_if_equal(self, one: int, value: int, label: str) -> None:
        self._words.append(_Word(0x15, one, 0, label, value))

    def jump_unless_equal(self, one: int, value: int, label: str) -> None:
        self._words.append(_Word(0x55, one, 0, label, value))

    def jump_unless_same(self, one: int, other: int, label: str) -> None:
        self._words.append(_Word(0x5D, one, other, label))

    def jump_from(self, one: int, value: int, label: str) -> None:
        """Jump if `one` >= `value`, unsigned."""
        self._words.append(_Word(0x35, one, 0, label, value))

    def jump_above(self, one: int, other: int, label: str) -> None:
        """Jump if `one` > `other`, unsigned."""
        self._words.append(_Word(0x2D, one, other, label))

    def assemble(self) -> bytes:
        """Resolve labels and encode the instructions, 8 bytes each."""
        done = b""
        for position, word in enumerate(self._words):
            offset = word.offset if isinstance(word.offset, int) else self._labels[word.offset] - position - 1
            done += struct.pack("=BBhi", word.code, word.to | word.of << 4, offset, word.value)
        return done


# --- calls ------------------------------------------------------------------------------------------------------


def create_map(kind: int, name: str, *, key: int, value: int, entries: int, flags: int = 0) -> int:
    """Create a map and return its descriptor; `key` and `value` are sizes in bytes. Raises: OSError."""
    return _call(MAP_CREATE, struct.pack("=7I16s", kind, key, value, entries, flags, 0, 0, name.encode()))


def update(map_fd: int, key: bytes, value: bytes) -> None:
    """Set the value of a key; programs see the old or the new value as a whole. Raises: OSError."""
    with_key, with_value = ctypes.create_string_buffer(key, len(key)), ctypes.create_string_buffer(value, len(value))
    _call(MAP_UPDATE, struct.pack("=IIQQQ", map_fd, 0, ctypes.addressof(with_key), ctypes.addressof(with_value), 0))


def delete(map_fd: int, key: bytes) -> None:
    """Delete a key. Raises: OSError; FileNotFoundError if it is missing."""
    with_key = ctypes.create_string_buffer(key, len(key))
    _call(MAP_DELETE, struct.pack("=IIQQQ", map_fd, 0, ctypes.addressof(with_key), 0, 0))


def load(program: bytes, name: str, attach_type: int) -> int:
    """Load a program, which the kernel verifies, and return its descriptor. Raises: OSError."""
    code, licence = ctypes.create_string_buffer(program, len(program)), ctypes.create_string_buffer(LICENSE)
    places = (ctypes.addressof(code), ctypes.addressof(licence))
    head = struct.pack("=IIQQIIQII", CGROUP_SOCK_ADDR, len(program) // 8, *places, 0, 0, 0, 0, 0)
    return _call(PROG_LOAD, head + struct.pack("=16sII", name.encode(), 0, attach_type))


def attach(cgroup_fd: int, program_fd: int, attach_type: int) -> None:
    """Attach a program beside others; it stays attached when this process ends. Raises: OSError."""
    _call(PROG_ATTACH, struct.pack("=IIII", cgroup_fd, program_fd, attach_type, ALLOW_MULTI))


def detach(cgroup_fd: int, program_fd: int, attach_type: int) -> None:
    """Detach a program. Raises: OSError."""
    _call(PROG_DETACH, struct.pack("=IIII", cgroup_fd, program_fd, attach_type, 0))


def attached(cgroup_fd: int, attach_type: int) -> dict[int, str]:
    """List attached programs: their names, by new descriptors that the caller closes. Raises: OSError."""
    ids = (ctypes.c_uint32 * MAX_ATTACHED)()
    query = struct.pack("=IIIIQI", cgroup_fd, attach_type, 0, 0, ctypes.addressof(ids), MAX_ATTACHED)
    answer = _buffer(query)
    _call_with(PROG_QUERY, answer)
    count: int = struct.unpack_from("=I", answer, 24)[0]
    found: dict[int, str] = {}
    try:
        for program_id in ids[:count]:
            with contextlib.suppress(FileNotFoundError):  # detached meanwhile
                fd = _call(PROG_GET_FD_BY_ID, struct.pack("=I", program_id))
                found[fd] = ""
                found[fd] = _name_of(fd)
    except BaseException:
        for fd in found:
            os.close(fd)
        raise
    return found


def _name_of(program_fd: int) -> str:
    return _info(program_fd).raw[64:80].partition(b"\0")[0].decode()


def load_time_ns(program_fd: int) -> int:
    """Return when a program was loaded, by the clock that counts from the boot on (CLOCK_BOOTTIME). Raises: OSError."""
    loaded: int = struct.unpack_from("=Q", _info(program_fd), 40)[0]
    return loaded


def maps_of(program_fd: int) -> list[int]:
    """Open each map that a program uses; the caller closes the descriptors. Raises: OSError."""
    ids = (ctypes.c_uint32 * MAX_MAPS)()
    # struct bpf_prog_info is also the request: nr_map_ids at 52 says how many fit, map_ids at 56 where to write them.
    info = _info(program_fd, _buffer(bytes(52) + struct.pack("=IQ", MAX_MAPS, ctypes.addressof(ids))))
    count: int = struct.unpack_from("=I", info, 52)[0]
    found: list[int] = []
    try:
        for map_id in ids[: min(count, MAX_MAPS)]:
            found.append(_call(MAP_GET_FD_BY_ID, struct.pack("=I", map_id)))
    except BaseException:
        for fd in found:
            os.close(fd)
        raise
    return found


def sizes_of(map_fd: int) -> tuple[int, int, int]:
    """Return a map's type and the sizes of its keys and values in bytes. Raises: OSError."""
    kind, _, key, value = struct.unpack_from("=IIII", _info(map_fd))
    return kind, key, value


def values(map_fd: int, key_size: int, value_size: int) -> list[bytes]:
    """List all values of a map; those added meanwhile may be missing. Raises: OSError."""
    found: list[bytes] = []
    key, following = None, ctypes.create_string_buffer(key_size)
    value = ctypes.create_string_buffer(value_size)
    with contextlib.suppress(FileNotFoundError):  # after the last
        while True:
            here = ctypes.addressof(key) if key is not None else 0
            _call(MAP_NEXT_KEY, struct.pack("=IIQQ", map_fd, 0, here, ctypes.addressof(following)))
            key = ctypes.create_string_buffer(following.raw, key_size)
            with contextlib.suppress(FileNotFoundError):  # deleted meanwhile
                there = ctypes.addressof(value)
                _call(MAP_LOOKUP, struct.pack("=IIQQQ", map_fd, 0, ctypes.addressof(key), there, 0))
                found.append(value.raw)
    return found


def _info(fd: int, info: ctypes.Array[ctypes.c_char] | None = None) -> ctypes.Array[ctypes.c_char]:
    """Read struct bpf_prog_info or bpf_map_info of a descriptor. Raises: OSError."""
    info = info or _buffer(b"")
    _call(OBJ_GET_INFO_BY_FD, struct.pack("=IIQ", fd, len(info), ctypes.addressof(info)))
    return info


def netns_cookie() -> int:
    """Return the kernel's number of this thread's network namespace (Linux 5.14). Raises: OSError."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        cookie: int = struct.unpack("=Q", sock.getsockopt(socket.SOL_SOCKET, SO_NETNS_COOKIE, 8))[0]
    return cookie


def open_cgroup_root() -> int:
    """Open the root of the version 2 control groups. Raises: OSError."""
    root = find_cgroup_root(Path("/proc/self/mounts").read_text())
    if root is None:
        raise OSError("version 2 of control groups is not mounted")
    return os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


@contextlib.contextmanager
def cgroup_root() -> Iterator[int]:
    """Open the root of the version 2 control groups while the block runs. Raises: OSError."""
    fd = open_cgroup_root()
    try:
        yield fd
    finally:
        os.close(fd)


def find_cgroup_root(mounts: str) -> Path | None:
    """Find the mount point of the version 2 control groups in the text of /proc/self/mounts."""
    for line in mounts.splitlines():
        _, where, kind, *_ = line.split()
        if kind == "cgroup2":
            return Path(where)
    return None


def _buffer(content: bytes) -> ctypes.Array[ctypes.c_char]:
    return ctypes.create_string_buffer(content, 256)  # a kernel accepts zeros behind the fields it knows


def _call(command: int, attributes: bytes) -> int:
    return _call_with(command, _buffer(attributes))


def _call_with(command: int, attributes: ctypes.Array[ctypes.c_char]) -> int:
    number = SYSCALL.get(platform.machine())
    if number is None:
        raise OSError(f"bpf is not known on {platform.machine()}")
    answer: int = _libc.syscall(number, command, attributes, len(attributes))
    if answer < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return answer
