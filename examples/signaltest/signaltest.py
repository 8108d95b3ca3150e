"""Lives until a signal comes, says which one it was, and exits with its number (SIGUSR1: with 0)."""

import signal
import sys

NAMES = {signal.SIGINT: "Ctrl+C/SIGINT", signal.SIGTERM: "SIGTERM", signal.SIGUSR1: "SIGUSR1"}

# Waited for, not interrupted by: a handler that prints could meet the line below halfway through.
signal.pthread_sigmask(signal.SIG_BLOCK, NAMES)

while True:
    print("I am alive", flush=True)
    if came := signal.sigtimedwait(NAMES, 1):
        number = came.si_signo
        print(f"signal {number} , Handling {NAMES[signal.Signals(number)]}!", flush=True)
        sys.exit(0 if number == signal.SIGUSR1 else number)
