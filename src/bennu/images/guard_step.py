"""Confines a step of a build like a default container: `guard_step.py RULES`, run in its bundle before it is made.

RULES is a file of JSON: {"capabilities", "rlimits", "maskedPaths", "readonlyPaths", "seccomp", "noNewPrivileges",
"cgroupsPath"} in the terms of an OCI configuration, and {"hosts", "resolv.conf"}: the texts of these files, if the step
is to have them, and "address": what its host name stands for; "" is nothing.
"""

# ruff: noqa: PTH110, PTH123

import json
import os
import sys
from typing import Any


def guard(spec: dict[str, Any], rules: dict[str, Any]) -> None:
    process, linux = spec["process"], spec["linux"]
    held = rules["capabilities"] if process["user"].get("uid", 0) == 0 else []
    process["capabilities"] = {"bounding": rules["capabilities"], "effective": held, "permitted": held}
    process["rlimits"] = rules["rlimits"]
    process["noNewPrivileges"] = rules["noNewPrivileges"]
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
    own = f"{rules['address']}\t{spec['hostname']}\n" if rules["address"] and spec.get("hostname") else ""
    for name, text in (("hosts", rules["hosts"] + own), ("resolv.conf", rules["resolv.conf"])):
        if os.path.exists(name):
            with open(name, "w") as file:
                file.write(text)


if __name__ == "__main__":
    main()
