"""`python -m bennu.simulate`: find the history that breaks a law.

--seeds N [--from M]     play N histories, stop at the first that breaks a law, print how to replay it
--seed N [--verbose]     replay one, with every action and event in words
--nodes N [--services S --replicas R] [--json]    one large cluster, and what it costs
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import asdict

from bennu.simulate.container_run import ContainerSeedFailed, run_container_seed, run_container_seeds
from bennu.simulate.run import SeedFailed, run_cluster, run_seed, run_seeds


def main() -> int:
    """Exit status 0: all laws held. 1: one did not; how to see it is on standard error."""
    parser = argparse.ArgumentParser(
        prog="python -m bennu.simulate", description="Simulate services, or containers, under faults."
    )
    parser.add_argument("--seeds", type=int, default=1000, help="how many histories to play")
    parser.add_argument("--from", dest="first", type=int, default=0, help="the first seed")
    parser.add_argument("--seed", type=int, help="replay this one history")
    parser.add_argument("--verbose", action="store_true", help="tell the history while it is replayed")
    parser.add_argument("--nodes", type=int, help="run one large cluster of this many nodes")
    parser.add_argument("--services", type=int, default=100)
    parser.add_argument("--replicas", type=int, default=1000)
    parser.add_argument("--json", action="store_true", help="say what the large cluster costs as JSON")
    parser.add_argument("--containers", action="store_true", help="histories of single containers, not of services")
    options = parser.parse_args()
    began = time.perf_counter()
    try:
        if options.nodes is not None:
            report = run_cluster(nodes=options.nodes, services=options.services, replicas=options.replicas)
            print(json.dumps(asdict(report)) if options.json else report)
            return 0
        if options.containers and options.seed is not None:
            run_container_seed(options.seed, verbose=True)
            print(f"seed {options.seed}: all laws held")
        elif options.containers:
            print(run_container_seeds(range(options.first, options.first + options.seeds)))
        elif options.seed is not None:
            run_seed(options.seed, verbose=True)
            print(f"seed {options.seed}: all laws held")
        else:
            print(run_seeds(range(options.first, options.first + options.seeds)))
    except (SeedFailed, ContainerSeedFailed) as failure:
        print(failure, file=sys.stderr)
        return 1
    print(f"{time.perf_counter() - began:.1f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
