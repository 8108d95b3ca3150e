"""The image a task needs, provided before anything of the task's predecessor is touched."""

import asyncio
import contextlib
from typing import Final

from bennu.errors import BennuError, NotFound
from bennu.images import Images
from bennu.images.pulling import pull
from bennu.images.reference import parse_reference
from bennu.images.registry.logins import parse_auth

PULL_TIMEOUT_S: Final = 1800
_pulling: dict[str, asyncio.Lock] = {}


async def provide_image(images: Images, ref: str, registry_auth: str) -> str:
    """Pull the image if it is not here, and return the name under which it is. Raises: NotFound `No such image: …`."""
    if here := _find(images, ref):
        return here
    async with _pulling.setdefault(ref, asyncio.Lock()):
        if here := _find(images, ref):
            return here
        reference = parse_reference(ref).tagged()
        try:
            async with (
                asyncio.timeout(PULL_TIMEOUT_S),
                contextlib.aclosing(pull(images, reference, parse_auth(registry_auth))) as steps,
            ):
                async for _ in steps:
                    pass
        except (BennuError, TimeoutError) as error:
            raise NotFound(f"No such image: {reference}") from error
    return ref


def _find(images: Images, ref: str) -> str | None:
    """Find an image by its name; a pinned name that only exists without its digest here is taken by its tag."""
    for name in dict.fromkeys((ref, ref.partition("@")[0])):
        with contextlib.suppress(NotFound):
            images.find(name)
            return name
    return None
