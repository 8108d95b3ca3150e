"""Reads manifests of images and lists of them, Docker's and OCI's, and chooses from a list. Pure."""

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from bennu.errors import BennuError, InvalidParameter
from bennu.go.platform import ImagePlatform, rank
from bennu.images.reference import SHA256

SIGNED: Final = "application/vnd.docker.distribution.manifest.v1+prettyjws"
PREFIXES: Final = ("application/vnd.oci.image", "application/vnd.docker")
OTHERS: Final = ("application/octet-stream", "application/json", "text/html", "")
IMAGE_CONFIGS: Final = (
    *("application/vnd.docker.container.image.v1+json", "application/vnd.oci.image.config.v1+json"),
    *OTHERS,
)
PLUGIN: Final = "application/vnd.docker.plugin.v1+json"
OLD_FORMAT: Final = (
    "Docker Image Format v1 and Docker Image manifest version 2, schema 1 support has been removed.{advice} "
    "More information at https://docs.docker.com/go/deprecated-image-specs/"
)


class Descriptor(msgspec.Struct, rename="camel"):
    digest: str
    media_type: str = ""
    size: int = 0
    annotations: dict[str, str] | None = None
    platform: dict[str, Any] | None = None


class Manifest(msgspec.Struct, rename="camel"):
    """An image's manifest or an index of them, Docker's or OCI's."""

    media_type: str = ""
    config: Descriptor | None = None
    layers: list[Descriptor] | None = None
    manifests: list[Descriptor] | None = None
    schema_version: int = 2


def parse_manifest(data: bytes, media_type: str = "", name: str = "") -> Manifest:
    """Read a manifest or a list of manifests; `media_type` is what its source calls it, `name` what it is of.

    Raises: BennuError; InvalidParameter for what is no image's.
    """
    try:
        manifest = msgspec.json.decode(data, type=Manifest)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise BennuError(f"invalid manifest: {error}") from None
    if manifest.schema_version == 1 or media_type == SIGNED:
        advice = f" Suggest the author of {name} to upgrade the image to the OCI Format or Docker Image manifest v2, "
        raise InvalidParameter(OLD_FORMAT.format(advice=f"{advice}schema 2." if name else ""))
    if manifest.config is None and manifest.manifests is None:
        raise InvalidParameter("unsupported manifest format")
    descriptors = [manifest.config] if manifest.config else []
    for descriptor in [*descriptors, *(manifest.layers or []), *(manifest.manifests or [])]:
        if not SHA256.match(descriptor.digest):
            raise BennuError(f"invalid manifest: unsupported digest {descriptor.digest}")
    return manifest


def check_media_types(manifest: Manifest) -> None:
    """Refuse what is no image: charts, models, plugins. Raises: InvalidParameter in Docker's words."""
    assert manifest.config is not None
    own = manifest.config.media_type
    if manifest.media_type.startswith("application/vnd.docker.distribution") and own not in IMAGE_CONFIGS:
        kind = "plugin" if own == PLUGIN else "unknown"
        raise InvalidParameter(f'Encountered remote "{own}"({kind}) when fetching')
    for media_type in (own, *(layer.media_type for layer in manifest.layers or [])):
        lower = media_type.lower()
        if lower.startswith("application/vnd.docker.ai."):
            raise InvalidParameter("AI models are not images")
        if lower not in OTHERS and not lower.startswith(tuple(f"{prefix}." for prefix in PREFIXES)):
            raise InvalidParameter(f"unsupported media type {media_type}")


def choose_platform(
    descriptors: Sequence[Descriptor], best: ImagePlatform, shown: ImagePlatform
) -> Sequence[Descriptor]:
    """List the entries that serve a platform, the best first; one without a platform may serve any.

    `shown` is how messages call it. Raises: BennuError when there is none.
    """
    found: list[tuple[int, Descriptor]] = []
    for descriptor in descriptors:
        own = descriptor.platform
        if not own:
            found.append((0, descriptor))
            continue
        platform = ImagePlatform(*(str(own.get(key) or "") for key in ("os", "architecture", "variant")))
        if (place := rank(best, platform)) is not None:
            found.append((place, descriptor))
    if not found:
        raise NoMatch(f"no matching manifest for {shown} in the manifest list entries")
    return [descriptor for _, descriptor in sorted(found, key=lambda pair: pair[0])]


class NoMatch(BennuError):
    """A list of manifests has nothing for the platform that is wanted."""
