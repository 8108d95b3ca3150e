"""A death certificate in the words of a person: the story, and what usually helps. Pure."""

from collections.abc import Sequence
from typing import Final

from bennu.lifecycle.death import Cause, Certificate, Decision, Oom, Requester, SentSignal, find_escalation, find_near
from bennu.lifecycle.disposition import Disposition
from bennu.lifecycle.exit_status import decode_exit_code
from bennu.lifecycle.signals import signal_name

SECOND_NS: Final = 10**9
COMMAND_STAGE: Final = 'exec: "'  # in the runtime's error when it is the command that could not be run
FAIR_CHANCE_NS: Final = SECOND_NS // 2  # less after the stop signal, and its being ignored proves nothing


def report_death(certificate: Certificate) -> list[str]:
    """Tell the story of a death in a few sentences, for a person."""
    story = [_how(certificate)]
    if (near := find_near(certificate)) is not None:
        story.append(_what_was_near(near, certificate.finished_at_ns))
    if escalation := find_escalation(certificate.signals):
        first, second = escalation
        name, waited_ns = signal_name(first.number), second.at_ns - first.at_ns
        if waited_ns < FAIR_CHANCE_NS:
            story.append(f"SIGKILL followed on {name} at once, as no time to end was granted.")
        else:
            story.append(f"It did not end on {name} within {format_ns(waited_ns)}, so SIGKILL followed.")
    if certificate.cause is Cause.UNHEALTHY and certificate.probes:
        probe, check = certificate.probes[-1], certificate.health_check
        named = f" (`{check}`)" if check else ""
        said = last_line(probe.output) or "no output"
        story.append(f"The last health probe{named} ended with {probe.exit_code}: {said}")
    if certificate.log_tail:
        story.append(f"The last it said was: {certificate.log_tail[-1]}")
    story.append(_what_followed(certificate.decision, certificate.finished_at_ns))
    return story


def _how(certificate: Certificate) -> str:
    name, life = certificate.name, certificate.life
    lived = f"its life number {life} lasted {format_ns(certificate.lived_ns)}"
    code = decode_exit_code(certificate.exit_code)
    match certificate.cause:
        case Cause.START_FAILED:
            return f"{name} could not be started: {heart_of(certificate.error)}"
        case Cause.LOST:
            return f"{name} ran when the host went down; how its process ended is unknown."
        case Cause.OOM:
            return f"The kernel killed {name} for memory ({_memory(certificate.oom)}); {lived}."
        case Cause.UNHEALTHY:
            return f"{name} was stopped because it was unhealthy, and ended with {code}; {lived}."
        case Cause.STOPPED | Cause.KILLED as cause:
            return f"{name} was {cause} by {describe_requester(certificate.asked_by)} and ended with {code}; {lived}."
        case Cause.SIGNAL:
            return f"{name} died of a signal that came from outside or from itself ({code}); {lived}."
        case Cause.EXITED:
            return f"{name} ended by itself with {code}; {lived}."
        case Cause.UNKNOWN:
            return f"{name} ended, and nobody could see how; {lived}."


def _what_was_near(sent: SentSignal, ended_ns: int) -> str:
    """Tell of a signal that came before an end and is not known to have caused it."""
    effect = {
        Disposition.FATAL: "which it does not survive, but it was ending already",
        Disposition.IGNORED: "which had no effect on it",
        Disposition.HANDLED: "for which it has a handler",
        Disposition.BLOCKED: "which it had blocked, to take it at its own time",
        Disposition.UNKNOWN: "which it may not have received",
    }[sent.disposition]
    before = format_ns(ended_ns - sent.at_ns)
    return f"{before} before, {describe_requester(sent.by)} had sent it {signal_name(sent.number)}, {effect}."


def heart_of(error: str) -> str:
    """Strip the names of the programs that a runtime's error passed through."""
    return error.rpartition("unable to start container process: ")[2].removesuffix(": unknown")


def describe_requester(requester: Requester) -> str:
    """Name a requester.

    Examples: `docker stop web (pid 812, uid 0)`, `CN=alice over TLS`, `the daemon (auto-remove)`, `nobody`.
    """
    match requester.kind:
        case "client" if requester.pid is not None:
            return f"`{requester.command or 'a client'}` (pid {requester.pid}, uid {requester.uid})"
        case "client" if requester.subject:
            return f"{requester.subject} over TLS"
        case "client":
            return "an API client"
        case "nobody":
            return "nobody"
        case kind:
            return f"the {kind}" + (f" ({requester.command})" if requester.command else "")


def _what_followed(decision: Decision, ended_ns: int) -> str:
    match decision.action:
        case "restart":
            after = f" after {format_ns(decision.next_try_at_ns - ended_ns)}" if decision.next_try_at_ns else ""
            return f"It is restarted{after}, because {decision.reason}."
        case "remove":
            return f"It is removed, because {decision.reason}."
        case _:
            return f"It stays down, because {decision.reason}."


def _memory(oom: Oom | None) -> str:
    if oom is None:
        return "no figures"
    limit = f"limit {format_bytes(oom.limit_bytes)}" if oom.limit_bytes else "no limit of its own"
    return f"{limit}, peak {format_bytes(oom.peak_bytes)}"


def last_line(text: str) -> str:
    """Return the last line of an output, the usual place of a program's error."""
    return text.strip().rpartition("\n")[2]


def format_ns(ns: int) -> str:
    """Format a duration: `850 ms`, `12.3 s`, `4 min 5 s`, `3 h 2 min`, `5 d 1 h`."""
    seconds = max(0, ns) / SECOND_NS
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    for unit, word, below, below_word in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if seconds >= unit:
            return f"{int(seconds // unit)} {word} {int(seconds % unit // below)} {below_word}"
    return f"{seconds:.0f} s"


def format_bytes(count: int) -> str:
    for unit, word in ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if count >= unit:
            return f"{count / unit:.4g} {word}"
    return f"{count} B"


# --- advice -----------------------------------------------------------------------------------------------------------


def hints(certificate: Certificate) -> list[str]:
    """List advice, where the cause is well known."""
    found = [_start_hint(certificate), _memory_hint(certificate), _signal_hint(certificate), _policy_hint(certificate)]
    return [hint for hint in found if hint]


def _start_hint(certificate: Certificate) -> str:
    taken = ("port is already allocated", "address already in use")
    if certificate.cause is Cause.START_FAILED and any(words in certificate.error for words in taken):
        return "Another container or program on this host listens on that port: stop it, or publish another port."
    if certificate.cause is Cause.START_FAILED and "error mounting" in certificate.error:
        return "A folder was to be mounted over a file, or a file over a folder: look at both ends of the mount."
    if certificate.cause is Cause.START_FAILED and COMMAND_STAGE not in certificate.error:
        return ""  # it did not come as far as the command, whatever the code
    if certificate.exit_code == 127:
        return (
            "The command was not found: check its spelling, the PATH, that the image contains it, and, of a script, "
            "the program its first line names."
        )
    if certificate.exit_code == 126:
        return "The command was found but cannot be run: it is a folder, or lacks the execute bit (chmod +x)."
    return ""


def _memory_hint(certificate: Certificate) -> str:
    if certificate.cause is Cause.OOM:
        return "Give it more memory (--memory), or find what grew; `docker stats` shows its use while it runs."
    if certificate.oom and certificate.oom.kills:
        return "The kernel killed a child of it for memory, not the main process: the limit may be too low."
    if certificate.exit_code == 137 and certificate.cause is Cause.SIGNAL:
        return (
            "SIGKILL without a memory kill: somebody on the host used kill -9, or a shell passes on that a child of it "
            "died so."
        )
    return ""


def _signal_hint(certificate: Certificate) -> str:
    escalation = find_escalation(certificate.signals)
    if escalation and escalation[1].at_ns - escalation[0].at_ns >= FAIR_CHANCE_NS:
        if has_shell_form(certificate.command):
            return (
                "The first process is a shell, which does not pass signals on: use the exec form of ENTRYPOINT or CMD, "
                "start the program with `exec`, or run with --init."
            )
        if escalation[0].disposition is Disposition.HANDLED:
            return "It handles the stop signal and needs more time to end: grant it with --stop-timeout or `stop -t`."
        return "The first process has no handler for the stop signal: handle it, use STOPSIGNAL, or run with --init."
    if certificate.exit_code in (130, 143) and certificate.cause is Cause.SIGNAL:
        return "SIGINT or SIGTERM came from outside of the engine: a shell on the host, or the program itself."
    return ""


def _policy_hint(certificate: Certificate) -> str:
    if (
        certificate.restart_policy == "on-failure"
        and certificate.exit_code == 0
        and certificate.decision.action == "stay"
    ):
        return "Exit code 0 is no failure, so on-failure does not restart it: use always or unless-stopped for that."
    return ""


def has_shell_form(command: Sequence[str]) -> bool:
    """Tell whether the command is the shell form of ENTRYPOINT or CMD."""
    return len(command) >= 3 and command[0] in ("/bin/sh", "sh", "/bin/bash", "bash") and command[1] == "-c"
