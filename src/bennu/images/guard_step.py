"""Confines a step of a build like a default container: `guard_step.py RULES`, run in its bundle before it is made.

RULES is a file of JSON: {"capabilities", "rlimits", "maskedPaths", "readonlyPaths", "seccomp", "cgroupsPath"} in the
terms of an OCI configuration, and "address", for the step's host name in its hosts file; "" leaves that as it is.
"""

# ruff: noqa: PTH123

import json
import sys
from typing import Any


def guard(spec: dict[str, Any], rules: dict[str, Any]) -> None:
    process, linux = spec["process"], spec["linux"]
    held = rules["capabilities"] if process["user"].get("uid", 0) == 0 else []
    process["capabilities"] = {"bounding": rules["capabilities"], "effective": held, "permitted": held}
    process["rlimits"] = rules["rlimits"]
    for name in ("maskedPaths", "readonlyPaths", "seccomp", "cgroupsPath"):
        linux[name] = rules[name]
    for mount in spec["mounts"]:
        if mount.get("type") in ("cgroup", "cgroup2"):
            mount["options"] = [*(word for word in mount["options"] if word != "rw"), "ro"]


def main() -> None:
    with open(sys.argv[1]) as file:
        rules = json.load(file)
    with open("config.json") as file:
        spec = json.load(file)
    guard(spec, rules)
    with open("config.json", "w") as file:
        json.dump(spec, file)
    if rules["address"] and spec.get("hostname"):
        with open("hosts", "a") as hosts:
            hosts.write(f"{rules['address']}\t{spec['hostname']}\n")


if __name__ == "__main__":
    main()
