"""Reading zstd through libzstd, for this standard library has none; loaded before the helper shuts itself in."""

import ctypes
from typing import Any, Final

from bennu.confined.words import Refused

LIBRARY: Final = "libzstd.so.1"
CHUNK: Final = 1 << 17


class Damaged(Exception):
    """What is read is no zstd."""


class Buffer(ctypes.Structure):
    """`ZSTD_inBuffer` and `ZSTD_outBuffer` of zstd.h."""

    _fields_ = (("start", ctypes.c_void_p), ("size", ctypes.c_size_t), ("position", ctypes.c_size_t))


def _load() -> ctypes.CDLL | None:
    try:
        library = ctypes.CDLL(LIBRARY)
    except OSError:
        return None
    library.ZSTD_createDStream.restype = ctypes.c_void_p
    library.ZSTD_decompressStream.argtypes = (ctypes.c_void_p, ctypes.POINTER(Buffer), ctypes.POINTER(Buffer))
    library.ZSTD_decompressStream.restype = ctypes.c_size_t
    library.ZSTD_getErrorName.argtypes = (ctypes.c_size_t,)
    library.ZSTD_getErrorName.restype = ctypes.c_char_p
    return library


_library: Final = _load()


class Reader:
    """The plain bytes of one or several frames. Raises: Refused without libzstd; Damaged; EOFError."""

    def __init__(self, source: Any) -> None:
        if _library is None:
            raise Refused("the layer is compressed with zstd and the library libzstd is not installed")
        self._library = _library
        self._source = source
        self._stream = _library.ZSTD_createDStream()
        self._in = b""
        self._waiting = Buffer(None, 0, 0)
        self._room = ctypes.create_string_buffer(CHUNK)
        self._wants = 1  # 0: a frame is complete

    def read(self, size: int) -> bytes:
        """Read at most `size` bytes; none at the end."""
        out = Buffer(ctypes.addressof(self._room), min(size, CHUNK), 0)
        while out.position == 0:
            if self._waiting.position == self._waiting.size and not self._refill():
                return b""
            wants = self._library.ZSTD_decompressStream(self._stream, ctypes.byref(out), ctypes.byref(self._waiting))
            if self._library.ZSTD_isError(ctypes.c_size_t(wants)):
                raise Damaged(self._library.ZSTD_getErrorName(wants).decode())
            self._wants = wants
        return self._room.raw[: out.position]

    def _refill(self) -> bool:
        """Read on; answer False at the end. Raises: EOFError inside a frame."""
        self._in = self._source.read(CHUNK)
        if not self._in and self._wants:
            raise EOFError
        start = ctypes.cast(ctypes.c_char_p(self._in), ctypes.c_void_p)
        self._waiting = Buffer(start, len(self._in), 0)
        return bool(self._in)
