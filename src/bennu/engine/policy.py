"""The life settings in a container's configuration: restart policy, health check, and Bennu's labels."""

import msgspec

from bennu.engine.record import Record
from bennu.lifecycle.governor import parse_governor
from bennu.lifecycle.health import Check, on_unhealthy, plan_check
from bennu.lifecycle.life_model import Policy
from bennu.lifecycle.restart import RestartPolicy
from bennu.lifecycle.signals import parse_signal
from bennu.model import ContainerConfig


def policy_of(record: Record) -> Policy:
    """Make a container's policy from its configuration. Raises: InvalidParameter for values that no creation admits."""
    config, host = record.config, record.host_config
    labels, declared = config.labels or {}, config.stop_signal
    return Policy(
        restart=RestartPolicy.parse(host.restart_policy.name, host.restart_policy.maximum_retry_count),
        governor=parse_governor(labels),
        auto_remove=host.auto_remove,
        stop_signal=parse_signal(declared) if isinstance(declared, str) and declared else None,
        check=check_of(config),
        on_unhealthy=on_unhealthy(labels),
    )


def check_of(config: ContainerConfig) -> Check | None:
    """Return the health check in force; None: it is absent or switched off. Raises: InvalidParameter (its labels)."""
    asked = config.healthcheck if isinstance(config.healthcheck, msgspec.Struct) else None
    return plan_check(
        asked.test if asked else None,
        interval_ns=asked.interval if asked else 0,
        timeout_ns=asked.timeout if asked else 0,
        start_period_ns=asked.start_period if asked else 0,
        start_interval_ns=asked.start_interval if asked else 0,
        retries=asked.retries if asked else 0,
        shell=config.shell if isinstance(config.shell, list) else None,
        labels=config.labels,
    )
