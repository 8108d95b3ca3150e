"""Lives until a signal comes, says which one it was, and exits with its number (SIGUSR1: with 0)."""

import signal
import sys
import time
from types import FrameType

NAMES = {signal.SIGINT: "Ctrl+C/SIGINT", signal.SIGTERM: "SIGTERM", signal.SIGUSR1: "SIGUSR1"}


def end(number: int, frame: FrameType | None) -> None:
    print(f"signal {number} , Handling {NAMES[signal.Signals(number)]}!", flush=True)
    sys.exit(0 if number == signal.SIGUSR1 else number)


for number in NAMES:
    signal.signal(number, end)

while True:
    print("I am alive", flush=True)
    time.sleep(1)
