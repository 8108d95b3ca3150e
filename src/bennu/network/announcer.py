"""Repeats the announcements of new endpoints (`namespaces/announcement.py`), since one frame may be lost."""

import asyncio
from collections.abc import Iterable

from bennu.descriptors import is_spare
from bennu.network.namespaces.announcement import Announcement


class Announcer:
    """The announcements under way, by endpoint id. Each holds a descriptor until its last repetition.

    The kernel takes milliseconds to close a packet socket (it waits for every CPU): a thread does that.
    """

    def __init__(self) -> None:
        self._timers: dict[str, tuple[Announcement, asyncio.TimerHandle]] = {}

    def repeat(self, announcement: Announcement, times: int, interval_s: float) -> None:
        """Send it `times` more; the socket is the announcer's from now on. Without descriptors to spare: not at all."""
        self.stop([announcement.endpoint_id])
        if times > 0 and is_spare(announcement.sock.fileno()):
            self._wait(announcement, times, interval_s)
        else:
            _close_later(announcement)

    def _wait(self, announcement: Announcement, times: int, interval_s: float) -> None:
        loop = asyncio.get_running_loop()
        timer = loop.call_later(interval_s, self._send, announcement, times, interval_s)
        self._timers[announcement.endpoint_id] = (announcement, timer)

    def _send(self, announcement: Announcement, times: int, interval_s: float) -> None:
        del self._timers[announcement.endpoint_id]
        if announcement.send() and times > 1:
            self._wait(announcement, times - 1, interval_s)
        else:
            _close_later(announcement)

    def stop(self, endpoint_ids: Iterable[str]) -> None:
        """Stop announcing these endpoints. Idempotent."""
        for endpoint_id in endpoint_ids:
            if (found := self._timers.pop(endpoint_id, None)) is not None:
                announcement, timer = found
                timer.cancel()
                _close_later(announcement)

    def close(self) -> None:
        """Stop all."""
        self.stop(list(self._timers))


def _close_later(announcement: Announcement) -> None:
    asyncio.get_running_loop().run_in_executor(None, announcement.sock.close)
