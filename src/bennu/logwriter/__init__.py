"""The writer of all containers' logs: a process of its own, which outlives bennud and is replaced by the next one.

conmon writes a container's output, line by line, to a named pipe in the container's bundle. One process for all
containers of a daemon root (`server.py`) reads these pipes and writes the log files: in the format, within the bounds
and as patiently as each container's log options ask. A container that writes faster than its log is written waits, or
with `mode=non-blocking` loses lines, as in Docker.

    conmon ──► named pipe ──► server.py: lines.py (format) ──► rotated_file.py (bounds) ──► ID-json.log, .1, .2.gz, …
                                 ▲
                         client.py (bennud): what is written where; asks at a container's end whether all is on disk

* bennud is killed: the writer goes on, and so do the bounds. The next bennud connects to it again.
* The writer is killed: the pipes stay, for conmon holds a reading end of its own, and nobody hears of a broken pipe.
  bennud starts another one at once, or when it is itself started again; until then a fast container waits.
* Bennu is upgraded: a writer of other sources hands what it holds to the next (`Request.LEAVE`) and ends.
* No bennud and no container: the writer ends.

The server's modules import the standard library only, so that it starts in some hundredths of a second and is small.
"""
