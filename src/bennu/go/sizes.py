"""`units.RAMInBytes`: sizes as people write them for memory, `64m` or `1.5GiB`, in powers of 1024."""

import re
from typing import Final

SIZE: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?([kKmMgGtTpP])?i?[bB]?\Z", re.ASCII)
POWERS: Final = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4, "p": 5}


def parse_size(text: str) -> int:
    """Read a size in bytes. Raises: ValueError in the words of go-units."""
    match = SIZE.fullmatch(text)
    if not match:
        raise ValueError(f"invalid size: '{text[:100]}'")
    return int(float(match[1]) * 1024 ** POWERS[(match[2] or "").lower()])
