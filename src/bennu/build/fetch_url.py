"""Fetches what a URL answers. A program of its own, run in a source's world: `fetch_url.py REQUEST`.

REQUEST is JSON: {"url", "headers", "at_most": seconds of silence}. It writes a line of JSON, {"status", "headers",
"url": where it came from in the end} or {"error"}, and then the bytes. Uses nothing but the standard library.
"""

import http.client
import json
import socket
import ssl
import sys
import urllib.error
import urllib.request
from typing import Any, Final

PIECE: Final = 1 << 18


class Redirects(urllib.request.HTTPRedirectHandler):
    """Leads from one web address to another, and to nothing else."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        if not newurl.lower().startswith(("http://", "https://")):
            raise urllib.error.URLError(f"unsupported protocol scheme in {newurl!r}")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def opener() -> urllib.request.OpenerDirector:
    """Make an opener of web addresses alone: no files, no FTP."""
    found = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(context=ssl.create_default_context()),
        Redirects(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
    ):
        found.add_handler(handler)
    return found


def words(error: BaseException) -> str:
    """Say what went wrong as Go does."""
    if isinstance(error, urllib.error.URLError) and isinstance(error.reason, BaseException):
        return words(error.reason)
    if isinstance(error, TimeoutError):
        return "i/o timeout"
    if isinstance(error, ConnectionError):
        return f"connect: {(error.strerror or str(error)).lower()}"
    if isinstance(error, socket.gaierror):
        return f"lookup: {error.strerror}"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return str(error) or type(error).__name__


def main() -> None:
    asked = json.loads(sys.argv[1])
    out = sys.stdout.buffer

    def say(**told: Any) -> None:
        out.write(json.dumps(told).encode() + b"\n")

    try:
        request = urllib.request.Request(asked["url"], headers=asked["headers"])
        try:
            answer = opener().open(request, timeout=asked["at_most"])
        except urllib.error.HTTPError as error:
            say(status=error.code, headers={}, url=asked["url"])
            return
        with answer:
            headers = {name.lower(): value for name, value in answer.headers.items()}
            say(status=answer.status, headers=headers, url=answer.url)
            left = int(headers.get("content-length", -1)) if "content-encoding" not in headers else -1
            while data := answer.read(PIECE):
                out.write(data)
                left -= len(data)
            if left > 0:
                sys.exit("unexpected EOF")
    except (OSError, ValueError, http.client.HTTPException) as error:
        say(error=words(error))
    finally:
        out.flush()


if __name__ == "__main__":
    main()
