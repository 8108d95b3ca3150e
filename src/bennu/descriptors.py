"""Descriptors of this process are a common good: some are kept back for what nobody can do without.

A connection that somebody outside makes is a descriptor of ours. Whoever accepts such connections in numbers asks here
whether it may keep one more; the API, starts and stops do not ask, and so find some left.
"""

import resource
from typing import Final

RESERVED: Final = 64


def is_spare(fd: int) -> bool:
    """Whether a descriptor that was just made may be kept by one who can do without it.

    The kernel gives the lowest number that is free, so the number tells how many are in use.
    """
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return soft == resource.RLIM_INFINITY or fd < soft - RESERVED
