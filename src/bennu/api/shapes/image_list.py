"""Chooses among images: the filters of `docker images` and `docker image prune`."""

import re
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, Final

from bennu.api.http.query import Filters
from bennu.api.shapes.image import list_entry
from bennu.api.shapes.instants import parse_moment
from bennu.errors import InvalidParameter
from bennu.images import Image, Images
from bennu.images.reference import parse_reference

ACCEPTED: Final = frozenset(("dangling", "label", "before", "since", "reference", "until"))
PRUNE_ACCEPTED: Final = frozenset(("dangling", "label", "label!", "until"))


def list_images(
    images: Images,
    asked: Filters,
    *,
    everything: bool,
    minor: int,
    containers: Mapping[str, int] | None = None,
    with_shared: bool = False,
) -> list[dict[str, Any]]:
    """List what is asked for, newest first; `containers` by image are counted where they are given.

    Raises: InvalidParameter, NotFound (before, since).
    """
    asked.check(ACCEPTED)
    newer_than, older_than = _window(images, asked)
    dangling = asked.boolean("dangling")
    patterns = [compile_pattern(pattern) for pattern in asked.all("reference")]
    uses, sizes = layer_uses(images) if with_shared else (Counter[str](), {})
    entries = []
    for image in images.list():
        named = bool(image.repo_tags or image.repo_digests)
        if dangling is not None and dangling == bool(image.repo_tags):
            continue
        if not newer_than < image.created_ns < older_than or not asked.labels_match(image.labels):
            continue
        if not named and not everything and images.children(image):
            continue
        entry = list_entry(
            image,
            minor,
            containers=-1 if containers is None else containers.get(image.id, 0),
            shared_bytes=sum(sizes[diff_id] for diff_id in image.diff_ids if uses[diff_id] > 1) if with_shared else -1,
        )
        if patterns:
            entry["RepoTags"] = [name for name in image.repo_tags if _any_matches(patterns, name)]
            entry["RepoDigests"] = [name for name in image.repo_digests if _any_matches(patterns, name)]
            if not entry["RepoTags"] and not entry["RepoDigests"]:
                continue
        entries.append(entry)
    return entries


def layer_uses(images: Images) -> tuple[Counter[str], dict[str, int]]:
    """Count in how many images each layer is, and answer the layers' sizes in bytes."""
    shown = [image for image in images.list() if image.repo_tags or image.repo_digests or not images.children(image)]
    uses = Counter(diff_id for image in shown for diff_id in image.diff_ids)
    return uses, {diff_id: images.layer_size(diff_id) for diff_id in uses}


def _window(images: Images, asked: Filters) -> tuple[int, int]:
    newer_than, older_than = -(2**70), 2**70
    for ref in asked.all("before"):
        older_than = min(older_than, images.find(ref).created_ns)
    for ref in asked.all("since"):
        newer_than = max(newer_than, images.find(ref).created_ns)
    for moment in asked.all("until"):
        older_than = min(older_than, parse_moment(moment, time.time_ns()))
    return newer_than, older_than


def prune_test(asked: Filters) -> Callable[[Image], bool]:
    """Make the test of which images a prune may remove. Raises: InvalidParameter."""
    asked.check(PRUNE_ACCEPTED)
    if len(asked.all("until")) > 1:
        raise InvalidParameter("more than one until filter specified")
    until = [parse_moment(moment, time.time_ns()) for moment in asked.all("until")]

    def accept(image: Image) -> bool:
        if until and image.created_ns > until[0]:
            return False
        return asked.labels_match(image.labels) and not asked.labels_refuse(image.labels)

    return accept


def _any_matches(patterns: list[re.Pattern[str]], name: str) -> bool:
    familiar = parse_reference(name).familiar_name
    return any(pattern.fullmatch(name) or pattern.fullmatch(familiar) for pattern in patterns)


def compile_pattern(pattern: str) -> re.Pattern[str]:
    """Compile a pattern of Go's `path.Match`, in which `*` and `?` stop at slashes. Raises: InvalidParameter.

    In linear time, pinned by `test_image_list.py`.
    """
    first, *rest = _pieces(pattern)
    # Between two stars the first place that fits is as good as any: not to try the others keeps the time in bounds.
    middle = "".join(f"(?>[^/]*?{piece})" for piece in rest[:-1])
    last = f"[^/]*{rest[-1]}" if rest else ""
    try:
        return re.compile(first + middle + last)
    except (re.error, RecursionError, OverflowError):
        raise InvalidParameter("syntax error in pattern") from None


def _pieces(pattern: str) -> list[str]:
    """Split a pattern at its stars; each piece is a regular expression. Raises: InvalidParameter."""
    pieces, position = [""], 0
    while position < len(pattern):
        char = pattern[position]
        position += 1
        if char == "[":
            end = pattern.find("]", position + 1)
            if end < 0:
                raise InvalidParameter("syntax error in pattern")
            inside = pattern[position:end]
            negated = inside[0] == "^"
            members = re.escape(inside[negated:]).replace(r"\-", "-")
            pieces[-1] += f"[{'^' * negated}{members}]"
            position = end + 1
        elif char == "\\":
            if position == len(pattern):
                raise InvalidParameter("syntax error in pattern")
            pieces[-1] += re.escape(pattern[position])
            position += 1
        elif char == "*":
            pieces.append("")
        else:
            pieces[-1] += "[^/]" if char == "?" else re.escape(char)
    return pieces
