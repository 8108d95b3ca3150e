"""Takes jobs from the store and counts those done. The job `crash` ends the program with 3."""

import os
import signal
import socket
import sys
import time

from store import ask

signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(0))
me = socket.gethostname()
print(f"worker {me} at work", flush=True)
while True:
    try:
        job = ask("POP", "jobs")
    except OSError as error:
        print(f"no store: {error}", flush=True)
        time.sleep(0.2)
        continue
    if job == "-":
        time.sleep(0.05)
    elif job == "crash":
        os._exit(3)
    else:
        ask("INCR", "done")
        print(f"done {job}", flush=True)
