"""Fetches a commit with the host's git. A program of its own, run in a source's world: `fetch_git.py REQUEST`.

REQUEST is JSON: {"url", "ref", "commit", "subdir", "keep_git_dir", "submodules", "into": a folder}. Without a commit it
asks which one the ref is. It writes one line of JSON: {"commit"} or {"error"}. The files are then in `into/diff`.
Uses nothing but the standard library and git.
"""

# ruff: noqa: PTH103, PTH104, PTH108, PTH112, PTH113, PTH118

import json
import os
import re
import shutil
import subprocess
import sys
from typing import Any, Final

HASH: Final = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?\Z")
QUIET: Final = {
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_CONFIG_NOSYSTEM": "1",
    "HOME": "/root",
    "GIT_SSH_COMMAND": "ssh -oBatchMode=yes",
}


class GitError(Exception):
    """Git said no; the message is its own."""


def git(*words: str, cwd: str = "/") -> str:
    argv = [
        "git",
        "-c",
        "protocol.ext.allow=never",
        "-c",
        "core.hooksPath=/dev/null",
        "-c",
        "advice.detachedHead=false",
    ]
    done = subprocess.run([*argv, *words], cwd=cwd, env={**os.environ, **QUIET}, capture_output=True, check=False)
    if done.returncode != 0:
        raise GitError(done.stderr.decode(errors="replace").strip() or f"exit status {done.returncode}")
    return done.stdout.decode(errors="replace")


def resolve(url: str, ref: str) -> str:
    """Ask the remote which commit a ref is; of an annotated tag the commit it points to."""
    if HASH.match(ref):
        return ref
    wanted = [ref, f"{ref}^{{}}"] if ref else ["HEAD"]
    found = {}
    for line in git("ls-remote", "--", url, *wanted).splitlines():
        commit, _, name = line.partition("\t")
        found[name] = commit
    names = [ref or "HEAD"] if not ref or ref.startswith("refs/") else [f"refs/tags/{ref}", f"refs/heads/{ref}", ref]
    for name in names:
        for one in (f"{name}^{{}}", name):
            if one in found:
                return found[one]
    raise GitError(f"repository does not contain ref {ref or 'HEAD'}")


def check_out(asked: dict[str, Any]) -> None:
    url, commit, into = asked["url"], asked["commit"], asked["into"]
    repo = os.path.join(into, "repo")
    os.makedirs(repo)
    git("init", "--quiet", cwd=repo)
    git("remote", "add", "origin", url, cwd=repo)
    try:
        git("fetch", "--quiet", "--depth=1", "--no-tags", "origin", commit, cwd=repo)
    except GitError:  # a server that gives no commit by its name
        git("fetch", "--quiet", "--tags", "origin", "+refs/heads/*:refs/remotes/origin/*", cwd=repo)
    git("checkout", "--quiet", "--force", commit, cwd=repo)
    if asked["submodules"] and os.path.isfile(os.path.join(repo, ".gitmodules")):
        git("submodule", "--quiet", "update", "--init", "--recursive", "--depth=1", cwd=repo)
    if not asked["keep_git_dir"]:
        for folder, folders, files in os.walk(repo):
            if ".git" in folders:
                shutil.rmtree(os.path.join(folder, ".git"))
                folders.remove(".git")
            if ".git" in files:
                os.unlink(os.path.join(folder, ".git"))
    root = os.path.realpath(os.path.join(repo, asked["subdir"].strip("/")))
    if not f"{root}/".startswith(f"{os.path.realpath(repo)}/") or not os.path.isdir(root):
        raise GitError(f"subdir {asked['subdir']!r}: not found")
    os.rename(root, os.path.join(into, "diff"))
    os.chmod(os.path.join(into, "diff"), 0o755)  # noqa: PTH101


def main() -> None:
    asked = json.loads(sys.argv[1])
    os.umask(0o022)
    try:
        if not asked["commit"]:
            print(json.dumps({"commit": resolve(asked["url"], asked["ref"])}))
        else:
            check_out(asked)
            print(json.dumps({"commit": asked["commit"]}))
    except (GitError, OSError) as error:
        print(json.dumps({"error": str(error)}))


if __name__ == "__main__":
    main()
