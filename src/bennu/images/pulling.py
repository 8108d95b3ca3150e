"""`docker pull`: brings an image in from its registry, or a mirror of it, under its name."""

import asyncio
import contextlib
import hashlib
import logging
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass, replace
from typing import Final

from bennu.errors import BennuError, Forbidden, InvalidParameter
from bennu.go.platform import ImagePlatform, fits
from bennu.images.fetching import Fetched, FetchProgress, Refetch, fetch
from bennu.images.image import Image
from bennu.images.images import Images
from bennu.images.manifests import Manifest, NoMatch, check_media_types, choose_platform, parse_manifest
from bennu.images.platform import best_platform, host_platform
from bennu.images.reference import Reference
from bennu.images.registry.endpoints import endpoints_of
from bennu.images.registry.logins import Auth
from bennu.images.registry.refusals import RegistryError, of_pull
from bennu.images.registry.repository import Fallbacks, Repository
from bennu.images.remote_layers import RemoteBlob

SCRATCH: Final = "scratch"
MAX_INDEX_DEPTH: Final = 3
RETRY_S: Final = 5  # before the first retry of a download; each later one waits that much longer
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Begun:
    """The registry has it and layers will follow."""

    reference: Reference


@dataclass(frozen=True, slots=True)
class Pulled:
    """An image is here under its name. `warning` tells that it is not for the platform asked for."""

    reference: Reference
    image: Image
    digest: str  # of the manifest, or of the list of manifests it was chosen from
    is_new: bool
    warning: str = ""


@dataclass(frozen=True, slots=True)
class Ended:
    """All that was asked for is here; `is_new` tells whether anything of it was not before."""

    reference: Reference
    is_new: bool
    warning: str = ""


Step = Begun | FetchProgress | Pulled | Ended


async def pull(
    images: Images,
    reference: Reference,
    auth: Auth,
    *,
    all_tags: bool = False,
    platform: ImagePlatform | None = None,
) -> AsyncGenerator[Step, None]:
    """Bring an image in under its name. Raises: NotFound, BennuError in Docker's words; no layer is kept then."""
    if reference.familiar_name == SCRATCH:
        raise Forbidden(f"'{SCRATCH}' is a reserved name")
    fallbacks = Fallbacks(await endpoints_of(images.registries, reference.domain, mirrors=True))
    failure = BennuError(f"no endpoints found for {reference}")
    while endpoint := fallbacks.next():
        login = Auth() if endpoint.is_mirror else auth
        try:
            async with Repository(endpoint, reference.path, login, "pull") as repository:
                puller = Puller(images, repository, reference, platform)
                async with contextlib.aclosing(puller.run(all_tags=all_tags)) as steps:
                    async for step in steps:
                        yield step
            return
        except RegistryError as error:
            fallbacks.note(endpoint, error)
            failure = of_pull(error, reference)
            if error.complaints and not endpoint.is_mirror:
                break
        except InvalidParameter:
            raise
        except BennuError as error:
            if not endpoint.is_mirror:
                raise
            failure = error
        log.info("%s has no %s: %s", endpoint.url, reference, failure)
    raise failure


class Puller:
    """Pulls what one endpoint has of one repository."""

    def __init__(
        self, images: Images, repository: Repository, reference: Reference, platform: ImagePlatform | None
    ) -> None:
        self._images = images
        self._repository = repository
        self._reference = reference
        self._platform = platform

    async def run(self, *, all_tags: bool) -> AsyncGenerator[Step, None]:
        """Pull the image, or all of the repository. Raises: RegistryError, BennuError."""
        references = [self._reference]
        if all_tags:
            names = await self._repository.tags()
            references = [Reference(self._reference.domain, self._reference.path, tag) for tag in names]
        is_new, warning = False, ""
        for one in references:
            async with contextlib.aclosing(self._pull_one(one)) as steps:
                async for step in steps:
                    yield step
                    if isinstance(step, Pulled):
                        is_new, warning = is_new or step.is_new, step.warning
        yield Ended(self._reference, is_new, warning)

    async def _pull_one(self, reference: Reference) -> AsyncGenerator[Step, None]:
        digest = reference.digest
        if not digest and (found := await self._repository.find(reference.tag)) is not None:
            digest = found.digest
        if digest and (here := self._find_here(reference, digest)) is not None:
            yield Begun(reference)
            yield await self._name(reference, digest, await asyncio.to_thread(self._config_of, here))
            return
        raw, media_type = await self._repository.manifest(digest or reference.tag)
        actual = "sha256:" + hashlib.sha256(raw).hexdigest()
        if digest and actual != digest:
            raise BennuError(f"manifest verification failed for digest {digest}")
        listed = parse_manifest(raw, media_type, f"{reference.full_name}:{reference.tag}")
        manifest = await self._choose(listed)
        check_media_types(manifest)
        yield Begun(reference)
        assert manifest.config is not None
        with self._images.layers.hold() as hold:
            if (known := self._images.get(manifest.config.digest)) is not None:
                self._images.missing(known.diff_ids, hold)
                config = await asyncio.to_thread(self._config_of, known)
            else:
                async with contextlib.aclosing(fetch(self._images, self, manifest, hold)) as steps:
                    async for step in steps:
                        if isinstance(step, Fetched):
                            config = step.config
                        else:
                            yield step
            pulled = await self._name(reference, actual, config)
        await self._note_layers(pulled.image, manifest)
        yield replace(pulled, warning=self._mismatch(pulled) if listed.manifests is None else "")

    def _find_here(self, reference: Reference, digest: str) -> Image | None:
        """Find the image that the registry means, if it is here and for the platform that is wanted."""
        image_id = self._images.resolve(Reference(reference.domain, reference.path, digest=digest))
        image = self._images.get(image_id) if image_id else None
        is_right = image is not None and fits(self._platform or host_platform(), image.platform)
        return image if is_right else None

    def _config_of(self, image: Image) -> bytes:
        return self._images.layers.blob_path(image.id).read_bytes()

    async def _choose(self, manifest: Manifest, depth: int = 0) -> Manifest:
        """Go from a list to the manifest for the platform that is wanted. Raises: BennuError, RegistryError."""
        if manifest.manifests is None:
            return manifest
        best, shown = self._platform or best_platform(), self._platform or host_platform()
        for entry in choose_platform(manifest.manifests, best, shown):
            raw, media_type = await self._repository.manifest(entry.digest)
            if "sha256:" + hashlib.sha256(raw).hexdigest() != entry.digest:
                raise BennuError(f"manifest verification failed for digest {entry.digest}")
            found = parse_manifest(raw, media_type)
            if found.manifests is None:
                return found
            if depth < MAX_INDEX_DEPTH:
                with contextlib.suppress(NoMatch):
                    return await self._choose(found, depth + 1)
        raise NoMatch(f"no matching manifest for {shown} in the manifest list entries")

    async def blob(self, digest: str, size: int) -> AsyncIterator[bytes | Refetch]:
        """Yield the bytes of a blob of the repository (`fetching.Blobs`). Raises: BennuError."""
        path, log_name = self._repository.path, self._repository.connection.endpoint.url
        done = 0
        for attempt in range(1, self._images.registries.attempts + 1):
            try:
                async with contextlib.aclosing(self._repository.blob(digest, done)) as parts:
                    async for part in parts:
                        done += len(part)
                        if done > size:  # nobody fills the disk with what the manifest does not tell of
                            raise BennuError(f"filesystem layer verification failed for digest {digest}")
                        yield part
                return
            except RegistryError as error:
                if error.final or attempt == self._images.registries.attempts:
                    raise BennuError(str(error)) from error
                log.warning("%s: blob %s of %s breaks off after %d bytes: %s", log_name, digest, path, done, error)
            for left in range(RETRY_S * attempt, 0, -1):
                yield Refetch(left)
                await asyncio.sleep(1)

    async def _name(self, reference: Reference, digest: str, config: bytes) -> Pulled:
        """Make the image, whose layers are here, known under its name and its digest."""
        before = self._images.resolve(reference)
        by_digest = Reference(reference.domain, reference.path, digest=digest)
        tags = [] if reference.digest else [reference.tagged()]
        image = await self._images.add(config, tags=tags, digests=[by_digest])
        return Pulled(reference, image, digest, before != image.id)

    async def _note_layers(self, image: Image, manifest: Manifest) -> None:
        name = self._reference.full_name
        if not self._repository.connection.endpoint.is_mirror:
            blobs = [RemoteBlob(layer.digest, layer.size, name) for layer in manifest.layers or []]
            await self._images.remote.note(zip(image.diff_ids, blobs, strict=True))

    def _mismatch(self, pulled: Pulled) -> str:
        """Tell that the one image there is is not for the platform that was asked for."""
        own = pulled.image.platform
        if self._platform is None or fits(self._platform, own):
            return ""
        return (
            f"image with reference {pulled.reference} was found but its platform ({own}) does not match "
            f"the specified platform ({self._platform})"
        )
