"""Asks the docker command for its contexts: named endpoints, which it alone knows how to find.

Apart from `docker.py`, which every command line loads and which therefore must not load the client.
"""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

from bennu.cli.client import ApiClient
from bennu.cli.docker import CURE, find_docker
from bennu.cli.failure import CommandFailure
from bennu.cli.tls import TlsFiles


def ask_docker(context: str | None, config: str | None) -> ApiClient:
    """Make a client of the daemon that the docker command would talk to. Raises: CommandFailure in docker's words."""
    program = os.environ.get("DOCKER_CLI_PLUGIN_ORIGINAL_CLI_COMMAND") or find_docker()
    if program is None:
        raise CommandFailure(f"contexts are the docker command's, and there is none on PATH: {CURE}")
    words = [*(["--config", config] if config else []), "context", "inspect", *([context] if context else [])]
    done = subprocess.run([program, *words], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise CommandFailure(done.stderr.strip())
    return open_context(json.loads(done.stdout)[0])


def open_context(found: dict[str, Any]) -> ApiClient:
    """Make a client of what `docker context inspect` tells of a context. Pure."""
    endpoint = found["Endpoints"]["docker"]
    if not found["TLSMaterial"].get("docker"):
        return ApiClient(endpoint["Host"])
    folder = Path(found["Storage"]["TLSPath"], "docker")
    files = TlsFiles(folder / "ca.pem", folder / "cert.pem", folder / "key.pem", verify=not endpoint["SkipTLSVerify"])
    return ApiClient(endpoint["Host"], files)
