"""`docker pull`: brings an image in from its registry under its name."""

import contextlib
import hashlib
import logging
from collections.abc import AsyncGenerator
from dataclasses import dataclass

from bennu.errors import BennuError
from bennu.images.fetching import Fetched, FetchProgress, fetch, resolve_manifest
from bennu.images.image import Image
from bennu.images.images import Images
from bennu.images.loading import Manifest
from bennu.images.reference import Reference
from bennu.images.skopeo import Auth, Source, list_tags, mirror_location, mirror_source, registry_source

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Begun:
    """The registry has it and layers will follow."""

    reference: Reference


@dataclass(frozen=True, slots=True)
class Pulled:
    reference: Reference
    image: Image
    digest: str  # of the manifest, or of the list of manifests it was chosen from
    is_new: bool


async def pull(
    images: Images, reference: Reference, auth: Auth, *, all_tags: bool = False
) -> AsyncGenerator[Begun | FetchProgress | Pulled, None]:
    """Bring an image in under its name. Raises: NotFound, BennuError in Docker's words; no layer is kept then."""
    references = [reference]
    if all_tags:
        async with registry_source(reference, auth, images.layers.tmp, images.registries) as source:
            tags = await list_tags(source, reference)
        references = [Reference(reference.domain, reference.path, tag) for tag in tags]
    for one in references:
        async with contextlib.aclosing(_pull_one(images, one, auth)) as steps:
            async for step in steps:
                yield step


async def _pull_one(
    images: Images, reference: Reference, auth: Auth
) -> AsyncGenerator[Begun | FetchProgress | Pulled, None]:
    async with registry_source(reference, auth, images.layers.tmp, images.registries) as registry:
        source, raw, manifest = await _find_manifest(images, registry, reference)
        yield Begun(reference)
        assert manifest.config is not None
        digest = reference.digest or "sha256:" + hashlib.sha256(raw).hexdigest()
        before = images.resolve(reference)
        with images.layers.hold() as hold:
            async with contextlib.aclosing(fetch(images, source, manifest, hold)) as steps:
                async for step in steps:
                    if not isinstance(step, Fetched):
                        yield step
                        continue
                    by_digest = Reference(reference.domain, reference.path, digest=digest)
                    tags = [] if reference.digest else [reference.tagged()]
                    image = await images.add(step.config, tags=tags, digests=[by_digest])
                    yield Pulled(reference, image, digest, before != image.id)


async def _find_manifest(images: Images, registry: Source, reference: Reference) -> tuple[Source, bytes, Manifest]:
    """Ask the mirrors for the image, then its registry; answer who has it. Raises: BennuError of the registry."""
    for mirror in images.registries.mirrors_of(reference):
        source = mirror_source(mirror, reference)
        try:
            raw, manifest = await resolve_manifest(source, mirror_location(mirror, reference))
        except BennuError as error:
            log.warning("mirror %s has no %s: %s", mirror, reference, error)
        else:
            return source, raw, manifest
    raw, manifest = await resolve_manifest(registry, f"docker://{reference.full_name}")
    return registry, raw, manifest
