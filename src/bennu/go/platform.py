"""Parses platforms as images have them: `linux/arm64/v8`, `linux`, `arm64`. Pure.

The rules and words are those of containerd's `platforms` package.
"""

import re
from dataclasses import dataclass
from typing import Final

OS_PATTERN: Final = r"^([A-Za-z0-9_-]+)(?:\(([A-Za-z0-9_.%-]*)((?:\+[A-Za-z0-9_.%-]+)*)\))?$"
PART_PATTERN: Final = r"^[A-Za-z0-9_.-]+$"
SYSTEMS: Final = frozenset(
    (
        *("aix", "android", "darwin", "dragonfly", "freebsd", "hurd", "illumos", "ios", "js", "linux", "nacl"),
        *("netbsd", "openbsd", "plan9", "solaris", "windows", "zos"),
    )
)
ARCHITECTURES: Final = frozenset(
    (
        *("386", "amd64", "amd64p32", "arm", "armbe", "arm64", "arm64be", "loong64", "mips", "mipsle", "mips64"),
        *("mips64le", "mips64p32", "mips64p32le", "ppc", "ppc64", "ppc64le", "riscv", "riscv64", "s390", "s390x"),
        *("sparc", "sparc64", "wasm"),
    )
)
WRONG: Final = ": invalid argument"


@dataclass(frozen=True, slots=True)
class ImagePlatform:
    """A platform in Go's words; `variant` is "" where the architecture has only one that matters."""

    os: str
    architecture: str
    variant: str = ""


def parse_platform(text: str, host_architecture: str) -> ImagePlatform:
    """Parse a platform; what is left out is that of this host. Raises: ValueError in containerd's words."""
    if "*" in text:
        raise ValueError(f"{_quoted(text)}: wildcards not yet supported{WRONG}")
    first, *rest = text.split("/", 3)
    if not (found := re.fullmatch(OS_PATTERN, first)):
        raise ValueError(
            f"{_quoted(first)} is an invalid OS component of {_quoted(text)}: OSAndVersion specifier component must "
            f"match {_quoted(OS_PATTERN)}{WRONG}"
        )
    for part in rest:
        if not re.fullmatch(PART_PATTERN, part):
            raise ValueError(
                f"{_quoted(part)} is an invalid component of {_quoted(text)}: platform specifier component must "
                f"match {_quoted(PART_PATTERN)}{WRONG}"
            )
    system = {"macos": "darwin"}.get(found[1].lower(), found[1].lower())
    match rest:
        case []:
            return _of_one_word(text, system, host_architecture)
        case [architecture]:
            return ImagePlatform(system, *_normal(architecture, ""))
        case [architecture, variant]:
            return ImagePlatform(system, *_normal(architecture, variant))
    raise ValueError(f"{_quoted(text)}: cannot parse platform specifier{WRONG}")


def _of_one_word(text: str, system: str, host_architecture: str) -> ImagePlatform:
    """Take the word for a system if it is one, else for an architecture; only here both have to be known."""
    if system in SYSTEMS:
        return ImagePlatform(system, host_architecture)
    architecture, variant = _normal(text, "")
    if architecture not in ARCHITECTURES:
        raise ValueError(f"{_quoted(text)}: unknown operating system or architecture{WRONG}")
    return ImagePlatform("linux", architecture, variant)


def _normal(architecture: str, variant: str) -> tuple[str, str]:
    architecture, variant = architecture.lower(), variant.lower()
    match architecture:
        case "i386":
            return "386", ""
        case "x86_64" | "x86-64" | "amd64":
            return "amd64", "" if variant == "v1" else variant
        case "aarch64" | "arm64":
            return "arm64", {"8": "", "v8": "", "v8.0": "", "9": "v9", "9.0": "v9", "v9.0": "v9"}.get(variant, variant)
        case "armhf":
            return "arm", ""
        case "armel":
            return "arm", "v6"
        case "arm":
            return "arm", {"7": "", "v7": "", "5": "v5", "6": "v6", "8": "v8"}.get(variant, variant)
    return architecture, variant


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
