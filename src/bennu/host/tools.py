"""The programs that bennud starts: are they there, and how old are they."""

import asyncio
import re
import shutil
from dataclasses import dataclass
from typing import Final

from bennu.errors import BennuError
from bennu.host.finding import Finding, fail, ok, warn
from bennu.process import run

VERSION_TIMEOUT_S: Final = 20


@dataclass(frozen=True, slots=True)
class Tool:
    name: str
    package: str
    what_for: str
    needed: bool = True  # no container runs without it
    at_least: tuple[int, ...] = ()
    version_argument: str = "--version"


TOOLS: Final = (
    Tool("crun", "crun", "starts containers", at_least=(1, 4)),
    Tool("conmon", "conmon", "keeps containers alive without bennud", at_least=(2, 0, 26)),
    Tool("nft", "nftables", "publishes ports", at_least=(0, 9, 4)),
    Tool("git", "git", "fetches repositories that builds name", needed=False),
    Tool("ps", "procps", "lists the processes of a container: docker top", needed=False),
    Tool("tini", "tini", "is the first process under --init", needed=False),
)


async def check_tools(tools: tuple[Tool, ...] = TOOLS) -> list[Finding]:
    """Ask each for its version, all at once."""
    return list(await asyncio.gather(*(check_tool(tool) for tool in tools)))


async def check_tool(tool: Tool) -> Finding:
    path = shutil.which(tool.name)
    if path is None:
        return missing(tool)
    try:
        done = await run([path, tool.version_argument], timeout_s=VERSION_TIMEOUT_S)
    except (OSError, BennuError) as error:
        return fail(tool.name, f"{path} does not run: {error}", f"apt-get install --reinstall {tool.package}")
    return judge_version(tool, path, (done.stdout or done.stderr).decode(errors="replace"))


def missing(tool: Tool) -> Finding:
    """Report a missing tool: runc can stand in for crun. Pure but for one look on PATH."""
    if tool.name == "crun" and shutil.which("runc"):
        text = "not found; runc takes its place (three times slower to start a container)"
        return warn(tool.name, text, f"apt-get install {tool.package}")
    kind = fail if tool.needed else warn
    return kind(tool.name, f"not found; it {tool.what_for}", f"apt-get install {tool.package}")


def judge_version(tool: Tool, path: str, said: str) -> Finding:
    """Judge what the tool printed about its version. Pure."""
    found = re.search(r"(\d+(?:\.\d+)+)", said)
    if found is None:
        return warn(tool.name, f"{path} does not say its version")
    version = tuple(map(int, found[1].split(".")))
    if version < tool.at_least:
        wanted = ".".join(map(str, tool.at_least))
        return warn(tool.name, f"{found[1]} is older than {wanted}; it {tool.what_for}", f"install {wanted} or later")
    return ok(tool.name, f"{found[1]} ({path})")
