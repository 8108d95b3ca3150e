"""`bennud`: one host's engine and its API, as a process."""

import sys

from bennu import __version__
from bennu.daemon.flags import help_lines
from bennu.daemon.options import read_options, wants
from bennu.errors import BennuError


def main() -> None:
    """Run bennud. The engine is imported only once the arguments are known to be good."""
    arguments = sys.argv[1:]
    if wants(arguments, "help"):
        print("\n".join(help_lines()))
        return
    if wants(arguments, "version"):
        print(f"bennud version {__version__}")
        return
    try:
        options = read_options(arguments)
        if options.validate_only:
            print("configuration OK")
            return
        if options.repair_only:
            from bennu.daemon.repair import run_repair

            run_repair(options)
            return
        from bennu.daemon.run import start

        start(options)
    except BennuError as error:
        print(f"bennud: {error}", file=sys.stderr)
        sys.exit(1)
