"""The platform of this host, in the words of images (GOARCH)."""

import platform
import re
from functools import lru_cache
from pathlib import Path
from typing import Final

from bennu.errors import InvalidParameter
from bennu.go.arch import architecture
from bennu.go.platform import ImagePlatform, parse_platform

AMD64_LEVELS: Final = (  # the flags that each level of the x86-64 psABI adds, as Linux names them
    ("v2", frozenset({"cx16", "lahf_lm", "popcnt", "pni", "sse4_1", "sse4_2", "ssse3"})),
    ("v3", frozenset({"avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "abm", "movbe", "xsave"})),
    ("v4", frozenset({"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"})),
)


def host_architecture() -> str:
    """Answer this host's architecture: `amd64`, `arm64`, …"""
    return architecture(platform.machine())


def host_platform() -> ImagePlatform:
    """Answer this host's platform as it is called in messages."""
    own = host_architecture()
    return ImagePlatform("linux", own, {"arm64": "v8", "arm": "v7"}.get(own, ""))


@lru_cache(maxsize=1)
def best_platform() -> ImagePlatform:
    """Answer the most that this host's processor can run."""
    own = host_platform()
    return ImagePlatform("linux", "amd64", _amd64_level()) if own.architecture == "amd64" else own


def _amd64_level() -> str:
    found = re.search(r"^flags\s*:(.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    flags = set(found[1].split()) if found else set()
    level = ""
    for name, needed in AMD64_LEVELS:
        if not needed <= flags:
            break
        level = name
    return level


def read_platform(text: str) -> ImagePlatform | None:
    """Read a platform that a client asks for; None: none. Raises: InvalidParameter."""
    try:
        return parse_platform(text, host_architecture()) if text else None
    except ValueError as error:
        raise InvalidParameter(str(error)) from None


def wanted_platform(text: str) -> ImagePlatform | None:
    """Read the platform of an image that is to come to be here. Raises: InvalidParameter; also for another system."""
    found = read_platform(text)
    if found is not None and found.os != "linux":
        raise InvalidParameter("operating system is not supported")
    return found
