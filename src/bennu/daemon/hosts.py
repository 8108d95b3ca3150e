"""Where bennud answers: unix sockets, sockets passed by a service manager, and TCP for clients with a certificate."""

import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from bennu.daemon.flags import Settings
from bennu.errors import BennuError, InvalidParameter

DEFAULT_HOST: Final = "unix:///run/bennu/bennu.sock"
DEFAULT_TCP_PORT: Final = 2376
CERTIFICATES: Final = Path("~/.docker")  # dockerd's default


@dataclass(frozen=True, slots=True)
class Tls:
    """Files in PEM."""

    ca: Path
    certificate: Path
    key: Path


def read_tls(settings: Settings) -> Tls | None:
    """Read the paths of certificates; None unless clients must show one.

    Without a certificate, everybody who reaches the port would be root.
    """
    if not settings.get("tlsverify"):
        return None

    def path(flag: str, default: str) -> Path:
        return Path(str(settings.get(flag) or CERTIFICATES / default)).expanduser().absolute()

    return Tls(path("tlscacert", "ca.pem"), path("tlscert", "cert.pem"), path("tlskey", "key.pem"))


def open_context(tls: Tls) -> ssl.SSLContext:
    """Open the context of a server whose clients need a certificate of the CA. Raises: BennuError naming the file."""
    for path in (tls.ca, tls.certificate, tls.key):
        try:
            path.open().close()
        except OSError as error:
            raise BennuError(f"invalid TLS configuration: cannot read {path}: {error.strerror}") from None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.verify_mode = ssl.CERT_REQUIRED
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # as Go: an intermediate CA alone can be trusted
    try:
        context.load_verify_locations(tls.ca)
    except ssl.SSLError:
        raise BennuError(f"invalid TLS configuration: {tls.ca} holds no certificate in PEM") from None
    try:
        context.load_cert_chain(tls.certificate, tls.key, password=_no_password)
    except (ssl.SSLError, ValueError) as error:
        why = f"{tls.key} is not the unencrypted key of the certificate in {tls.certificate} ({error})"
        raise BennuError(f"invalid TLS configuration: {why}") from None
    return context


def _no_password() -> str:
    raise ValueError("it wants a password")  # the library would ask at the terminal


def check_host(host: str, tls: Tls | None) -> str:
    """Check the address of a listener and complete it. Raises: InvalidParameter."""
    scheme, found, rest = host.partition("://")
    if not found:
        scheme, rest = "tcp", host
    match scheme:
        case "unix" if rest.startswith("/"):
            if len(rest.encode()) > 107:
                raise InvalidParameter(f"the path of {host} is longer than the 107 bytes a unix socket can have")
            return host
        case "unix" if not rest:
            return DEFAULT_HOST
        case "fd":
            return host
        case "tcp":
            return _check_tcp(host, rest, tls)
    raise InvalidParameter(f"invalid bind address ({host}): use unix:///PATH, tcp://ADDRESS:PORT or fd://")


def _check_tcp(host: str, rest: str, tls: Tls | None) -> str:
    if tls is None:
        raise InvalidParameter(
            f"{host}: bennud listens on TCP only with --tlsverify, for whoever reaches the API is root; "
            "see --tlscacert, --tlscert and --tlskey, or use unix:///PATH"
        )
    try:
        parts = urlsplit(f"tcp://{rest}")
        port = DEFAULT_TCP_PORT if parts.port is None else parts.port
    except ValueError:
        parts, port = urlsplit("tcp://"), 0
    if not port or parts.path or parts.query or parts.username:
        raise InvalidParameter(f"invalid bind address ({host}): use tcp://ADDRESS:PORT")
    address = parts.hostname or "127.0.0.1"  # as dockerd: every address only for those who say so
    return f"tcp://[{address}]:{port}" if ":" in address else f"tcp://{address}:{port}"


def split_tcp(host: str) -> tuple[str, int]:
    """Split a checked `tcp://` host into address and port."""
    parts = urlsplit(host)
    assert parts.hostname is not None and parts.port is not None
    return parts.hostname, parts.port
