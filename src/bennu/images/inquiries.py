"""What registries are asked beside images: whether a login is right, and what a name stands for."""

import hashlib
import logging
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec

from bennu.errors import BennuError, InvalidParameter
from bennu.images.manifests import parse_manifest
from bennu.images.reference import DOMAIN, HUB, Reference
from bennu.images.registries import Registries
from bennu.images.registry.connection import RegistryConnection
from bennu.images.registry.endpoints import RegistryEndpoint, endpoints_of
from bennu.images.registry.logins import Auth
from bennu.images.registry.refusals import RegistryError, of_status, status_line
from bennu.images.registry.repository import MANIFEST, OCI_INDEX, OCI_MANIFEST, Fallbacks, Repository

HUB_HOST: Final = "index.docker.io"
LOGIN_S: Final = 15.0
PLATFORM_FIELDS: Final = ("architecture", "os", "os.version", "os.features", "variant")
log = logging.getLogger(__name__)


async def check_login(registries: Registries, auth: Auth) -> str:
    """Log in at a registry; answer the token that stands for the password from now on, "" if it gives none.

    Raises: Unauthorized, InvalidParameter, BennuError in Docker's words.
    """
    fallbacks = Fallbacks(await endpoints_of(registries, _host_of(auth.serveraddress), mirrors=False))
    failure: BennuError | None = None
    while endpoint := fallbacks.next():
        try:
            return await _log_in(endpoint, auth)
        except RegistryError as error:
            fallbacks.note(endpoint, error)
            failure = of_status(error)
            if error.code == "UNAUTHORIZED":
                break
            log.info("cannot log in at %s: %s", endpoint.url, error)
    raise failure or BennuError("no endpoints found")


def _host_of(address: str) -> str:
    """Read the registry from what a client calls it, which may be a URL. Raises: InvalidParameter."""
    if not address:
        return HUB
    url = address if address.startswith(("http://", "https://")) else f"https://{address}"
    try:
        host = urlsplit(url).netloc
    except ValueError as error:
        raise InvalidParameter(f"unable to parse server address: {error}") from None
    if not DOMAIN.match(host):
        raise InvalidParameter(f'unable to parse server address: invalid host "{host}"')
    return HUB if host == HUB_HOST else host


async def _log_in(endpoint: RegistryEndpoint, auth: Auth) -> str:
    async with (
        RegistryConnection(endpoint, auth, offline=True) as connection,
        connection.request("GET", "", seconds=LOGIN_S) as answer,
    ):
        if answer.status != 200:
            status = status_line(answer.status, answer.reason)
            raise RegistryError(f"login attempt to {endpoint.url}/v2/ failed with status: {status}", spoken=True)
        return connection.identity_token


async def inspect_remote(registries: Registries, reference: Reference, auth: Auth) -> dict[str, Any]:
    """Tell what a name stands for in its registry, and for which platforms: the answer of `/distribution`.

    Raises: Unauthorized, Forbidden, NotFound, BennuError in Docker's words.
    """
    fallbacks = Fallbacks(await endpoints_of(registries, reference.domain, mirrors=True))
    failure = BennuError(f"no endpoints found for {reference}")
    while endpoint := fallbacks.next():
        login = Auth() if endpoint.is_mirror else auth
        try:
            async with Repository(endpoint, reference.path, login, "pull") as repository:
                return await _inspect(repository, reference)
        except RegistryError as error:
            fallbacks.note(endpoint, error)
            failure = of_status(error)
            if error.complaints and not endpoint.is_mirror:
                break
    raise failure


async def _inspect(repository: Repository, reference: Reference) -> dict[str, Any]:
    tag = reference.tagged().tag
    found = None if reference.digest else await repository.find(tag)
    raw, told_type = await repository.manifest(reference.digest or (found.digest if found else tag))
    digest = "sha256:" + hashlib.sha256(raw).hexdigest()
    if reference.digest and digest != reference.digest:
        raise BennuError(f"manifest verification failed for digest {reference.digest}")
    manifest = parse_manifest(raw, told_type, f"{reference.full_name}:{reference.tag}")
    is_list = manifest.manifests is not None
    media_type = manifest.media_type or (OCI_INDEX if is_list else OCI_MANIFEST)
    platforms = None
    if manifest.manifests is not None:
        platforms = [_platform(entry.platform or {}) for entry in manifest.manifests]
    elif media_type == MANIFEST and manifest.config is not None:
        platforms = await _platform_of_config(repository, manifest.config.digest)
    descriptor = {"mediaType": media_type, "digest": digest, "size": len(raw)}
    return {"Descriptor": descriptor, "Platforms": platforms}


async def _platform_of_config(repository: Repository, digest: str) -> list[dict[str, Any]] | None:
    """Read the platform of an image from its configuration; None where there is none to be had."""
    try:
        found = msgspec.json.decode(await repository.document(digest), type=dict[str, Any])
    except (RegistryError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return [_platform(found)] if found.get("os") or found.get("architecture") else None


def _platform(fields: dict[str, Any]) -> dict[str, Any]:
    """Write a platform as OCI's `Platform` has it: the first two always, the others where they say something."""
    shown = {key: fields[key] for key in PLATFORM_FIELDS if fields.get(key)}
    return {"architecture": "", "os": ""} | shown
