"""Platforms of images, as clients ask for them since API 1.46: JSON of OCI's shape (moby `httputils/form.go`)."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from bennu.decoding import decode
from bennu.errors import InvalidParameter, NotFound
from bennu.go.platform import ImagePlatform, fits
from bennu.images import Image


class PlatformShape(msgspec.Struct):
    """What an image is for; `variant` as in `arm64/v8`."""

    architecture: str = ""
    os: str = ""
    os_version: str = msgspec.field(name="os.version", default="")
    os_features: list[str] | None = msgspec.field(name="os.features", default=None)
    variant: str = ""

    def __str__(self) -> str:
        return "/".join(filter(None, (self.os, self.architecture, self.variant)))

    def fits(self, config: Mapping[str, Any]) -> bool:
        """Tell whether an image of this configuration serves who asks for the platform, as containerd does."""
        variant = str(config.get("variant") or "")
        own = ImagePlatform(str(config.get("os") or "linux"), str(config.get("architecture") or ""), variant)
        return fits(ImagePlatform(self.os, self.architecture, self.variant), own)


def decode_platform(text: str) -> PlatformShape:
    """Read a platform. Raises: InvalidParameter."""
    try:
        found = decode(text.encode(errors="surrogateescape"), PlatformShape) or PlatformShape()
    except InvalidParameter as error:
        raise InvalidParameter(f"failed to parse platform: {str(error).removeprefix('invalid JSON: ')}") from None
    if not found.os and not found.architecture and (found.variant or found.os_version or found.os_features):
        raise InvalidParameter("optional platform fields provided, but OS and Architecture are missing")
    if not found.os or not found.architecture:
        raise InvalidParameter("both OS and Architecture must be provided")
    return found


def only_platform(given: Sequence[str]) -> PlatformShape | None:
    """Read a parameter that may be given once. Raises: InvalidParameter."""
    if len(given) > 1:
        raise InvalidParameter("multiple platform parameters not supported")
    return decode_platform(given[0]) if given and given[0] else None


def check_platform(image: Image, name: str, wanted: PlatformShape | None) -> None:
    """Refuse an image that is for another platform. Raises: NotFound in dockerd's words."""
    if wanted is None or wanted.fits(image.raw):
        return
    variant = str(image.raw.get("variant") or "")
    own = PlatformShape(architecture=image.architecture, os=image.os, variant=variant)
    raise NotFound(
        f"image with reference {name} was found but its platform ({own}) does not match "
        f"the specified platform ({wanted})"
    )
