"""`docker rmi` and `docker image prune`: what may go, in which order, and what is told of it.

The rules are those of moby `daemon/images/image_delete.go`.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from bennu.errors import BennuError, Conflict
from bennu.images.image import Image
from bennu.images.images import Images
from bennu.images.reference import parse_reference


@dataclass(slots=True)
class Removal:
    """What happened, in order. `records` are the answer's entries (`{"Untagged": …}`, `{"Deleted": …}`)."""

    records: list[dict[str, str]] = field(default_factory=list)
    events: list[tuple[str, str, Mapping[str, str]]] = field(default_factory=list)  # action, image id, labels
    reclaimed: int = 0  # bytes


class ImageInUse(Conflict):
    """`hard` conflicts cannot be forced; `used` says that a container is the reason."""

    def __init__(self, image: Image, reason: str, *, hard: bool, used: bool = False) -> None:
        force = "cannot be forced" if hard else "must be forced"
        super().__init__(f"conflict: unable to delete {short_id(image.id)} ({force}) - {reason}")
        self.used = used


def short_id(identifier: str) -> str:
    return identifier.removeprefix("sha256:")[:12]


def chain_ids(diff_ids: Sequence[str]) -> list[str]:
    """Answer Docker's ids of layers in their place in an image (ChainID of the OCI image-spec `config.md`)."""
    chains: list[str] = []
    for diff_id in diff_ids:
        joined = f"{chains[-1]} {diff_id}" if chains else ""
        chains.append(f"sha256:{hashlib.sha256(joined.encode()).hexdigest()}" if joined else diff_id)
    return chains


async def remove_image(images: Images, ref: str, *, force: bool = False, prune: bool = True) -> Removal:
    """Drop a name; with the last name (or by id) the image itself, and untagged parents with `prune`.

    Raises: NotFound; Conflict with Docker's words. What `Removal` tells has happened.
    """
    image = images.find(ref)
    removal = Removal()
    by_name = not image.id.startswith(ref) and not image.id.removeprefix("sha256:").startswith(ref)
    if by_name:
        if await _remove_name(images, image, ref, removal, force=force):
            return removal
    elif _is_single_name(_names(image)):
        _check(images, image, force=force, names=False)
        await _untag(images, image, _names(image), removal)
    await _delete(images, image, removal, force=force, prune=prune, quiet=by_name)
    return removal


async def _remove_name(images: Images, image: Image, ref: str, removal: Removal, *, force: bool) -> bool:
    """Drop a name. True: the image stays, for it has other names."""
    if not force and _is_single_name(_names(image)) and (users := images.users(image.id)):
        raise Conflict(
            f'conflict: unable to remove repository reference "{ref}" (must force) - container '
            f"{short_id(users[0][0])} is using its referenced image {short_id(image.id)}"
        )
    given = parse_reference(ref).tagged()
    dropped = f"{given.familiar_name}@{given.digest}" if given.digest else str(given)
    await _untag(images, image, [dropped], removal)
    if not given.digest and all(_repository(tag) != given.familiar_name for tag in image.repo_tags):
        digests = [name for name in image.repo_digests if _repository(name) == given.familiar_name]
        await _untag(images, image, digests, removal)
    return bool(_names(image))


async def _untag(images: Images, image: Image, names: Sequence[str], removal: Removal) -> None:
    if not names:
        return
    await images.untag(names)
    for name in names:
        removal.records.append({"Untagged": name})
        removal.events.append(("untag", image.id, image.labels))


async def _delete(images: Images, image: Image, removal: Removal, *, force: bool, prune: bool, quiet: bool) -> None:
    try:
        _check(images, image, force=force, names=True)
    except ImageInUse as conflict:
        if quiet and (_names(image) or images.children(image) or conflict.used):
            return
        raise
    await _untag(images, image, _names(image), removal)
    chains = dict(zip(image.diff_ids, chain_ids(image.diff_ids), strict=True))
    layers = await images.delete(image)
    removal.events.append(("delete", image.id, image.labels))
    removal.records.append({"Deleted": image.id})
    removal.records += [{"Deleted": chains[layer.diff_id]} for layer in layers]
    removal.reclaimed += sum(layer.size for layer in layers)
    parent = images.get(image.parent) if image.parent else None
    if prune and parent is not None and not _names(parent) and not images.users(parent.id):
        await _delete_quietly(images, parent, removal)


async def _delete_quietly(images: Images, image: Image, removal: Removal) -> None:
    try:
        await _delete(images, image, removal, force=False, prune=True, quiet=True)
    except ImageInUse:
        return


def _check(images: Images, image: Image, *, force: bool, names: bool) -> None:
    """Refuse to remove an image that is in use. Raises: ImageInUse."""
    if images.children(image):
        raise ImageInUse(image, "image has dependent child images", hard=True)
    users = images.users(image.id)
    for container_id, running in users:
        if running:
            reason = f"image is being used by running container {short_id(container_id)}"
            raise ImageInUse(image, reason, hard=True, used=True)
    if force:
        return
    if names and _names(image):
        raise ImageInUse(image, "image is referenced in multiple repositories", hard=False)
    if users:
        reason = f"image is being used by stopped container {short_id(users[0][0])}"
        raise ImageInUse(image, reason, hard=False, used=True)


def _names(image: Image) -> list[str]:
    return [*image.repo_tags, *image.repo_digests]


def _repository(name: str) -> str:
    return parse_reference(name).familiar_name


def _is_single_name(names: Sequence[str]) -> bool:
    """Tell whether there is at most one tag, and all digests are of that tag's repository."""
    tags = [name for name in names if "@" not in name]
    repositories = {_repository(name) for name in names}
    return len(names) <= 1 or (len(tags) <= 1 and len(repositories) == 1)


async def prune_images(images: Images, *, dangling_only: bool, accept: Callable[[Image], bool]) -> Removal:
    """Remove what no container uses and (with `dangling_only`) no tag names.

    An image that a container uses keeps the last of its names, in the order of the alphabet.
    """
    total = Removal()
    for image in images.list():
        if images.get(image.id) is None or not accept(image):
            continue
        if (not _names(image) and images.children(image)) or (dangling_only and image.repo_tags):
            continue
        for ref in _names(image) or [image.id]:
            try:
                removal = await remove_image(images, ref)
            except BennuError:
                continue
            total.records += removal.records
            total.events += removal.events
            total.reclaimed += removal.reclaimed
    return total
