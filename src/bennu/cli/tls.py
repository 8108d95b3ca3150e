"""Connects over TCP with certificates, by docker's options and variables."""

import os
import socket
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bennu.cli.failure import CommandFailure

DEFAULT_PORT: Final = 2376
CONNECT_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """What this side shows and whom it trusts; without `verify` anybody may answer."""

    ca: Path
    certificate: Path
    key: Path
    verify: bool


def find_tls(
    tls: bool, tlsverify: bool, tlscacert: str | None, tlscert: str | None, tlskey: str | None
) -> TlsFiles | None:
    """Read the options, DOCKER_TLS, DOCKER_TLS_VERIFY and DOCKER_CERT_PATH as the docker command does; None: no TLS."""
    verify = tlsverify or bool(os.environ.get("DOCKER_TLS_VERIFY"))
    if not (verify or tls or os.environ.get("DOCKER_TLS")):
        return None
    folder = Path(os.environ.get("DOCKER_CERT_PATH") or "~/.docker").expanduser()
    return TlsFiles(
        ca=Path(tlscacert or folder / "ca.pem"),
        certificate=Path(tlscert or folder / "cert.pem"),
        key=Path(tlskey or folder / "key.pem"),
        verify=verify,
    )


def connect(address: str, port: int, files: TlsFiles) -> socket.socket:
    """Connect. Raises: CommandFailure (certificates), OSError; ValueError for an impossible address."""
    context = open_context(files)
    remote = socket.create_connection((address, port), timeout=CONNECT_S)
    try:
        session = context.wrap_socket(remote, server_hostname=address)
    except (ssl.SSLError, TimeoutError) as error:
        remote.close()
        raise CommandFailure(explain(f"tcp://{address}:{port}", error)) from None
    session.settimeout(None)
    return session


def open_context(files: TlsFiles) -> ssl.SSLContext:
    """Load the files. Raises: CommandFailure naming the file that is missing or wrong."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # as Go: an intermediate CA alone can be trusted
    if not files.verify:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        if files.verify:
            context.load_verify_locations(_readable(files.ca))
        if files.verify or files.certificate.exists():
            context.load_cert_chain(_readable(files.certificate), _readable(files.key))
    except ssl.SSLError as error:
        raise CommandFailure(
            f"cannot use the certificates in {files.ca}, {files.certificate} and {files.key}: {error}"
        ) from None
    return context


def _readable(path: Path) -> Path:
    try:
        path.open().close()
    except OSError as error:
        raise CommandFailure(
            f"unable to resolve docker endpoint: open {path}: {(error.strerror or str(error)).lower()}"
        ) from None
    return path


def explain(host: str, error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"error during connect to {host}: tls: failed to verify certificate: {error.verify_message}"
    if isinstance(error, ssl.SSLError) and error.reason == "WRONG_VERSION_NUMBER":
        return f"error during connect to {host}: the daemon there does not speak TLS"
    refusal = (getattr(error, "reason", None) or "").partition("_ALERT_")[2]
    if refusal:
        return f"error during connect to {host}: remote error: tls: {refusal.lower().replace('_', ' ')}"
    return f"error during connect to {host}: tls: {getattr(error, 'reason', None) or error or 'no answer in time'}"
