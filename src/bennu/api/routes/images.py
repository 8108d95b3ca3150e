"""`/images`: everything about images but building them."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Mapping

from aiohttp import web

from bennu.api.http.body import body_of
from bennu.api.http.progress import Message, status, stream_progress
from bennu.api.http.query import Filters, api_minor, filters, flag, is_version_at_least, text
from bennu.api.http.responses import empty_response, json_response
from bennu.api.http.streams import ends_with_client, open_chunks, write_file
from bennu.api.shapes.image import history_json, inspect_json
from bennu.api.shapes.image_list import list_images, prune_test
from bennu.api.shapes.platforms import PlatformShape, check_platform, decode_platform, only_platform
from bennu.build.changes import apply_changes
from bennu.engine.engine import Engine
from bennu.errors import BennuError, InvalidParameter
from bennu.images import Image, Images
from bennu.images.downloading import download, with_scheme
from bennu.images.fetching import FetchProgress, LayerPhase
from bennu.images.importing import EMPTY_CONFIG, import_image
from bennu.images.loading import LayerProgress, Loaded, load
from bennu.images.platform import wanted_platform
from bennu.images.pulling import Begun, Ended, Pulled, Step, pull
from bennu.images.pushing import Pushing, chosen_names, push
from bennu.images.reference import TAG, Reference, parse_reference
from bennu.images.registry.logins import Auth, parse_auth
from bennu.images.removal import Removal, prune_images, remove_image, short_id
from bennu.images.saving import choose, save


def routes(engine: Engine) -> list[web.RouteDef]:
    api = ImageRoutes(engine)
    return [
        web.route("GET", "/images/json", api.list),
        web.route("GET", "/images/get", api.save),
        web.route("GET", "/images/{name:.+}/get", api.save),
        web.route("POST", "/images/load", api.load),
        web.route("POST", "/images/create", api.create),
        web.route("POST", "/images/prune", api.prune),
        web.route("GET", "/images/{name:.+}/json", api.inspect),
        web.route("GET", "/images/{name:.+}/history", api.history),
        web.route("POST", "/images/{name:.+}/tag", api.tag),
        web.route("POST", "/images/{name:.+}/push", api.push),
        web.route("DELETE", "/images/{name:.+}", api.remove),
    ]


class ImageRoutes:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._journal = engine.services.journal
        self._images: Images = engine.services.images

    async def announce(self, action: str, actor_id: str, name: str, labels: Mapping[str, str] | None = None) -> None:
        await self._journal.publish("image", action, actor_id, {**(labels or {}), "name": name})

    async def _announce_removal(self, removal: Removal) -> None:
        for action, image_id, labels in removal.events:
            await self.announce(action, image_id, image_id, labels)

    # --- looking ------------------------------------------------------------------------------------------------

    async def list(self, request: web.Request) -> web.Response:
        asked, minor = filters(request), api_minor(request)
        if minor < 41 and (pattern := text(request, "filter")):
            asked = Filters({**asked, "reference": [*asked.all("reference"), pattern]})
        containers = Counter(container.record.image_id for container in self._engine.list()) if minor >= 51 else None
        found = list_images(
            self._images,
            asked,
            everything=flag(request, "all"),
            minor=minor,
            containers=containers,
            with_shared=minor >= 42 and flag(request, "shared-size"),
        )
        return json_response(found)

    async def inspect(self, request: web.Request) -> web.Response:
        wanted = platform_of(request, since=49)
        if wanted is not None and flag(request, "manifests"):
            raise InvalidParameter("conflicting options: manifests and platform options cannot both be set")
        image = self._find(request, wanted)
        is_old_compose = request.headers.get("User-Agent", "").startswith("docker-compose/1.")
        return json_response(inspect_json(self._images, image, api_minor(request), for_old_compose=is_old_compose))

    async def history(self, request: web.Request) -> web.Response:
        return json_response(history_json(self._images, self._find(request, platform_of(request, since=48))))

    def _find(self, request: web.Request, wanted: PlatformShape | None) -> Image:
        """Find the image that the path names. Raises: NotFound, also when it is not for the platform `wanted`."""
        name = request.match_info["name"]
        image = self._images.find(name)
        check_platform(image, name, wanted)
        return image

    # --- names and removal --------------------------------------------------------------------------------------

    async def tag(self, request: web.Request) -> web.Response:
        name = repo_tag(text(request, "repo"), text(request, "tag"))
        if name is None:
            raise InvalidParameter("invalid reference format")
        if name.familiar_name == "sha256":
            raise InvalidParameter("refusing to create an ambiguous tag using digest algorithm as name")
        image = self._images.find(request.match_info["name"])
        await self._tag(image, name)
        return empty_response(201)

    async def _tag(self, image: Image, name: Reference) -> None:
        await self._images.tag(image, name)
        await self.announce("tag", image.id, str(name.tagged()), image.labels)

    async def remove(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        if not name.strip():
            raise InvalidParameter("image name cannot be blank")
        self._check_removal(request)
        force, prune = flag(request, "force"), not flag(request, "noprune")
        removal = await remove_image(self._images, name, force=force, prune=prune)
        await self._announce_removal(removal)
        return json_response(removal.records)

    def _check_removal(self, request: web.Request) -> None:
        platforms = request.query.getall("platforms", ()) if is_version_at_least(request, 50) else ()
        wanted = [decode_platform(given) for given in platforms]
        if len(wanted) > 1:
            raise InvalidParameter("multiple platforms are not supported")
        if wanted:
            self._find(request, wanted[0])

    async def prune(self, request: web.Request) -> web.Response:
        asked = filters(request)
        accept = prune_test(asked)
        removal = await prune_images(self._images, dangling_only=asked.boolean("dangling") is not False, accept=accept)
        await self._announce_removal(removal)
        await self._journal.publish("image", "prune", "", {"reclaimed": str(removal.reclaimed)})
        return json_response({"ImagesDeleted": removal.records or None, "SpaceReclaimed": removal.reclaimed})

    # --- coming in ----------------------------------------------------------------------------------------------

    @ends_with_client
    async def create(self, request: web.Request) -> web.StreamResponse:
        """Pull (`fromImage`) or import (`fromSrc`) an image, streaming the progress."""
        if text(request, "fromImage"):
            return await self._create_by_pull(request)
        return await stream_progress(request, self._import(request))

    async def _create_by_pull(self, request: web.Request) -> web.StreamResponse:
        reference, all_tags = pull_reference(text(request, "fromImage"), text(request, "tag"))
        wanted = wanted_platform(text(request, "platform") if is_version_at_least(request, 32) else "")
        auth = parse_auth(request.headers.get("X-Registry-Auth", ""))
        steps = pull(self._images, reference, auth, all_tags=all_tags, platform=wanted)
        return await stream_progress(request, self._pull_messages(steps))

    async def _pull_messages(self, pulling: AsyncGenerator[Step, None]) -> AsyncGenerator[Message, None]:
        async with contextlib.aclosing(pulling) as steps:
            async for step in steps:
                for message in pull_lines(step):
                    yield message
                if isinstance(step, Pulled):
                    name = step.reference.familiar_name
                    await self.announce("pull", str(step.reference.tagged()), name, step.image.labels)

    async def _import(self, request: web.Request) -> AsyncGenerator[Message, None]:
        source = text(request, "fromSrc")
        name = repo_tag(text(request, "repo"), text(request, "tag"))
        platform = wanted_platform(text(request, "platform"))

        async def make(tar: AsyncIterable[bytes]) -> Image:
            message = text(request, "message") or f"Imported from {source}"
            config = apply_changes(EMPTY_CONFIG, request.query.getall("changes", []))
            return await import_image(self._images, tar, name=name, message=message, config=config, platform=platform)

        if source == "-":
            image = await make(body_of(request))
        else:
            async with contextlib.aclosing(_imported(with_scheme(source), make)) as steps:
                async for step in steps:
                    if isinstance(step, Image):
                        image = step
                    else:
                        yield step
        if name is not None:
            await self.announce("tag", image.id, str(name.tagged()), image.labels)
        await self.announce("import", image.id, image.id, image.labels)
        yield status(image.id)

    @ends_with_client
    async def load(self, request: web.Request) -> web.StreamResponse:
        wanted = platform_of(request, since=48)
        return await stream_progress(request, self._load(request, wanted), errors_in_stream=True)

    async def _load(self, request: web.Request, wanted: PlatformShape | None) -> AsyncGenerator[Message, None]:
        quiet = flag(request, "quiet", True)
        accept = wanted.fits if wanted else None
        async with contextlib.aclosing(load(self._images, body_of(request), accept)) as steps:
            async for step in steps:
                if isinstance(step, LayerProgress):
                    if not quiet:
                        yield status("Loading layer", short_id(step.diff_id), step.current, step.total)
                else:
                    await self.announce("load", step.image.id, step.image.id, step.image.labels)
                    for text in loaded_lines(step):
                        yield {"stream": f"{text}\n"}

    # --- going out ----------------------------------------------------------------------------------------------

    async def save(self, request: web.Request) -> web.StreamResponse:
        named = request.match_info.get("name")
        refs = [named] if named else request.query.getall("names", [])
        chosen = choose(self._images, refs)
        wanted = platform_of(request, since=48)
        if wanted is not None and not all(wanted.fits(image.raw) for image in chosen):
            raise BennuError(f"no suitable export target found for platform {wanted}")
        response = await open_chunks(request, "application/x-tar")
        async with contextlib.aclosing(save(self._images, chosen)) as parts:
            async for part in parts:
                if isinstance(part, bytes):
                    await response.write(part)
                else:
                    await write_file(request, response, part.path, part.size)
        for image in chosen:
            await self.announce("save", image.id, image.id, image.labels)
        return response

    @ends_with_client
    async def push(self, request: web.Request) -> web.StreamResponse:
        name = parse_reference(request.match_info["name"])
        if name.digest:
            raise InvalidParameter("cannot push a digest reference")
        if tag := text(request, "tag"):
            name = repo_tag(str(name), tag) or name
        self._check_push(request, name)
        auth = parse_auth(request.headers.get("X-Registry-Auth", ""))
        return await stream_progress(request, self._push(name, auth))

    def _check_push(self, request: web.Request, name: Reference) -> None:
        if (wanted := platform_of(request, since=46)) is not None:
            check_platform(self._images.find(str(name)), str(name), wanted)

    async def _push(self, name: Reference, auth: Auth) -> AsyncGenerator[Message, None]:
        yield {"status": f"The push refers to repository [{name.full_name}]"}
        async with contextlib.aclosing(push(self._images, chosen_names(self._images, name), auth)) as steps:
            async for step in steps:
                if isinstance(step, Pushing):
                    yield status(step.status, short_id(step.diff_id), step.current, step.total)
                    continue
                await self.announce("push", str(step.reference), step.reference.familiar_name, step.image.labels)
                tag, size = step.reference.tag, step.manifest_size
                yield {"status": f"{tag}: digest: {step.digest} size: {size}"}
                yield {"progressDetail": {}, "aux": {"Tag": tag, "Digest": step.digest, "Size": size}}


async def _imported(
    url: str, make: Callable[[AsyncIterable[bytes]], Awaitable[Image]]
) -> AsyncGenerator[Message | Image, None]:
    """Fetch what `make` makes an image of, telling how far it is; the last item is the image. Raises: BennuError."""
    told: asyncio.Queue[tuple[int, int] | None] = asyncio.Queue()
    async with download(url, lambda current, total: told.put_nowait((current, total))) as coming:
        yield status(f"Downloading from {url}")
        work = asyncio.ensure_future(make(coming.parts))
        work.add_done_callback(lambda _: told.put_nowait(None))
        try:
            while (step := await told.get()) is not None:
                yield status("Importing", "", *step)
            yield await work
        finally:
            if not work.done():
                work.cancel()
                await asyncio.wait([work])


def platform_of(request: web.Request, *, since: int) -> PlatformShape | None:
    """Read `platform=`, which came with API 1.`since`. Raises: InvalidParameter."""
    return only_platform(request.query.getall("platform", ())) if is_version_at_least(request, since) else None


def loaded_lines(loaded: Loaded) -> list[str]:
    lines = [
        f"The image {name} already exists, renaming the old one with ID {holder} to empty string"
        for name, holder in loaded.displaced.items()
    ]
    lines += [f"Loaded image: {tag}" for tag in loaded.tags]
    return lines if loaded.tags else [*lines, f"Loaded image ID: {loaded.image.id}"]


def pull_lines(step: Step) -> list[Message]:
    """Make the messages of one step of a pull."""
    match step:
        case Begun(reference):
            return [{"status": f"Pulling from {reference.path}", "id": reference.digest or reference.tag}]
        case FetchProgress(blob, LayerPhase.RETRYING, seconds=seconds):
            return [status(f"Retrying in {seconds} second{'s' * (seconds != 1)}", short_id(blob))]
        case FetchProgress():
            return [status(step.phase, short_id(step.blob), step.current, step.total)]
        case Pulled():
            return [{"status": f"Digest: {step.digest}"}]
        case Ended(reference, is_new, warning):
            news = "Downloaded newer image for" if is_new else "Image is up to date for"
            lines: list[Message] = [{"status": f"Status: {news} {reference}"}]
            return [*lines, {"status": f"WARNING: {warning}"}] if warning else lines


def pull_reference(name: str, tag: str) -> tuple[Reference, bool]:
    """Read `fromImage=` and `tag=`, and whether all tags are meant. Raises: InvalidParameter."""
    reference = parse_reference(name)
    if tag.startswith("sha256:"):
        return parse_reference(f"{reference}@{tag}"), False
    if tag:
        if not TAG.match(tag):
            raise InvalidParameter("invalid reference format")
        return Reference(reference.domain, reference.path, tag), False
    return reference, not (reference.tag or reference.digest)


def repo_tag(repo: str, tag: str) -> Reference | None:
    """Read the name that `repo=` and `tag=` make; None when neither is given. Raises: InvalidParameter."""
    if not repo:
        return None
    name = parse_reference(repo)
    if name.digest:
        raise InvalidParameter("cannot import digest reference")
    if tag and not TAG.match(tag):
        raise InvalidParameter("invalid tag format")
    return Reference(name.domain, name.path, tag or name.tag).tagged()
