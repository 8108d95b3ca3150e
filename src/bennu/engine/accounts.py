"""The contents of `/etc/passwd` and `/etc/group` in the images that containers were started from lately."""

from collections import OrderedDict
from collections.abc import Mapping
from typing import Final

MAX_IMAGES: Final = 128
MAX_LENGTH: Final = 64 << 10  # characters of both files; longer ones are read at each start


class Accounts:
    """Account files by image and working directory, only where the image has that directory. The oldest go first."""

    def __init__(self) -> None:
        self._known: OrderedDict[tuple[str, str], Mapping[str, str]] = OrderedDict()

    def get(self, image_id: str, working_dir: str) -> Mapping[str, str] | None:
        return self._known.get((image_id, working_dir))

    def put(self, image_id: str, working_dir: str, texts: Mapping[str, str]) -> None:
        if sum(map(len, texts.values())) > MAX_LENGTH:
            return
        self._known[image_id, working_dir] = texts
        while len(self._known) > MAX_IMAGES:
            self._known.popitem(last=False)
