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
MOST_VARIANTS: Final = 16  # there are not so many of any architecture
WRONG: Final = ": invalid argument"


@dataclass(frozen=True, slots=True)
class ImagePlatform:
    """A platform in Go's words; `variant` is "" where the architecture has only one that matters."""

    os: str
    architecture: str
    variant: str = ""

    def __str__(self) -> str:
        return "/".join(filter(None, (self.os, self.architecture, self.variant)))


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
            architecture, variant = _normal(architecture, variant)
            return ImagePlatform(system, architecture, variant or ("v8" if architecture == "arm64" else ""))
    raise ValueError(f"{_quoted(text)}: cannot parse platform specifier{WRONG}")


def _of_one_word(text: str, system: str, host_architecture: str) -> ImagePlatform:
    """Take the word for a system if it is one, else for an architecture; only here both have to be known."""
    if system in SYSTEMS:
        return ImagePlatform(system, host_architecture)
    architecture, variant = _normal(text, "")
    if architecture not in ARCHITECTURES:
        raise ValueError(f"{_quoted(text)}: unknown operating system or architecture{WRONG}")
    return ImagePlatform("linux", architecture, variant)


def rank(wanted: ImagePlatform, other: ImagePlatform) -> int | None:
    """Tell how well `other` serves who wants `wanted`: 0 is best; None: not at all."""
    served = _served(_canonical(wanted))
    found = _canonical(other)
    return served.index(found) if found in served else None


def fits(wanted: ImagePlatform, image: ImagePlatform) -> bool:
    """Tell whether an image serves who wants `wanted`; one that names no variant serves each of its architecture."""
    if rank(wanted, image) is not None:
        return True
    own, asked = _canonical(image), _canonical(wanted)
    return not image.variant and (own.os, own.architecture) == (asked.os, asked.architecture)


def _canonical(platform: ImagePlatform) -> ImagePlatform:
    architecture, variant = _normal(platform.architecture, platform.variant)
    if architecture == "arm" and not variant:
        variant = "v7"
    return ImagePlatform({"macos": "darwin"}.get(platform.os.lower(), platform.os.lower()), architecture, variant)


def _served(platform: ImagePlatform) -> list[ImagePlatform]:
    """List what runs on a platform, the best first: itself, what its processor was before, its 32 bits."""
    system, number = platform.os, platform.variant.removeprefix("v")
    match platform.architecture:
        case "amd64":
            older = range(int(number), 1, -1) if number.isdecimal() and int(number) <= MOST_VARIANTS else ()
            own = [ImagePlatform(system, "amd64", f"v{one}") for one in older] or [platform]
            plain = [ImagePlatform(system, "amd64")] if platform.variant else []
            return [*own, *plain, ImagePlatform(system, "386")]
        case "arm":
            older = range(int(number), 4, -1) if number.isdecimal() and int(number) <= MOST_VARIANTS else ()
            return [ImagePlatform(system, "arm", f"v{one}") for one in older] or [platform]
        case "arm64":
            major, _, minor = (number or "8").partition(".")
            if major not in ("8", "9") or not (minor or "0").isdecimal() or int(minor or 0) > MOST_VARIANTS:
                return [platform]
            last = int(minor or 0)
            steps = [(9, one) for one in range(last, -1, -1)] if major == "9" else []
            steps += [(8, one) for one in range(last + (5 if major == "9" else 0), -1, -1)]
            names = [f"v{one}.{two}" if two else f"v{one}" for one, two in steps]
            own = [ImagePlatform(system, "arm64", "" if name == "v8" else name) for name in names]
            return [*own, *_served(ImagePlatform(system, "arm", "v8"))]
    return [platform]


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
