"""A certificate told: sentences and hints."""

from dataclasses import replace
from signal import SIGKILL, SIGTERM

import pytest

from bennu.lifecycle.death import Cause, Certificate, Decision, Oom, Probe, Requester, SentSignal, Verb
from bennu.lifecycle.death_report import (
    describe_requester,
    format_bytes,
    format_ns,
    has_shell_form,
    hints,
    report_death,
)

SECOND = 10**9
END = 1000 * SECOND
CLIENT = Requester("client", uid=0, pid=812, command="docker stop web")
STAY = Decision("stay", "the restart policy is no")

BASE = Certificate(
    container_id="c" * 64,
    name="web",
    image="web:1",
    life=3,
    started_at_ns=END - 65 * SECOND,
    finished_at_ns=END,
    cause=Cause.EXITED,
    exit_code=2,
    meaning="2: exited with an error",
    decision=STAY,
)


def signals(grace_s: float, verb: Verb = Verb.STOP) -> tuple[SentSignal, ...]:
    stop = SentSignal(END - round(grace_s * SECOND), SIGTERM, CLIENT, verb)
    return stop, SentSignal(END, SIGKILL, CLIENT, verb)


LIVED = "its life number 3 lasted 1 min 5 s"


@pytest.mark.parametrize(
    ("certificate", "sentence"),
    [
        (BASE, f"web ended by itself with 2: exited with an error; {LIVED}."),
        (
            replace(BASE, cause=Cause.START_FAILED, error="port is already allocated"),
            "web could not be started: port is already allocated",
        ),
        (
            replace(BASE, cause=Cause.LOST, exit_code=None),
            "web ran when the host went down; how its process ended is unknown.",
        ),
        (
            replace(BASE, cause=Cause.OOM, exit_code=137, oom=Oom(1, 64 << 20, 64 << 20, True)),
            f"The kernel killed web for memory (limit 64 MiB, peak 64 MiB); {LIVED}.",
        ),
        (
            replace(BASE, cause=Cause.UNHEALTHY, exit_code=0),
            f"web was stopped because it was unhealthy, and ended with 0: success; {LIVED}.",
        ),
        (
            replace(BASE, cause=Cause.STOPPED, exit_code=143, asked_by=CLIENT),
            f"web was stopped by `docker stop web` (pid 812, uid 0) and ended with 143: killed by SIGTERM; {LIVED}.",
        ),
        (
            replace(BASE, cause=Cause.KILLED, exit_code=137, asked_by=Requester.daemon("auto-remove")),
            f"web was killed by the daemon (auto-remove) and ended with 137: killed by SIGKILL; {LIVED}.",
        ),
        (
            replace(BASE, cause=Cause.SIGNAL, exit_code=139),
            f"web died of a signal that came from outside or from itself (139: killed by SIGSEGV); {LIVED}.",
        ),
        (replace(BASE, cause=Cause.UNKNOWN, exit_code=None), f"web ended, and nobody could see how; {LIVED}."),
    ],
)
def test_the_first_sentence_names_the_cause(certificate: Certificate, sentence: str) -> None:
    assert report_death(certificate)[0] == sentence


def test_every_cause_is_told() -> None:
    for cause in Cause:
        assert report_death(replace(BASE, cause=cause))[0]


def test_an_escalation_is_told_with_the_time_it_took() -> None:
    hard = replace(BASE, cause=Cause.STOPPED, exit_code=137, asked_by=CLIENT, escalated=True, signals=signals(10))
    assert report_death(hard)[1] == "It did not end on SIGTERM within 10.0 s, so SIGKILL followed."
    at_once = replace(hard, signals=signals(0.001))
    assert report_death(at_once)[1] == "SIGKILL followed on SIGTERM at once, as no time to end was granted."


def test_what_it_said_last_and_what_the_probe_said() -> None:
    sick = replace(
        BASE,
        cause=Cause.UNHEALTHY,
        log_tail=["first", "last"],
        probes=[Probe("t", 0, ""), Probe("t", 1, "curl:\nrefused\n")],
    )
    assert report_death(sick)[1:3] == ["The last health probe ended with 1: refused", "The last it said was: last"]
    named = replace(sick, health_check="curl -f localhost")
    assert report_death(named)[1] == "The last health probe (`curl -f localhost`) ended with 1: refused"


@pytest.mark.parametrize(
    ("decision", "sentence"),
    [
        (STAY, "It stays down, because the restart policy is no."),
        (Decision("remove", "--rm asks for it"), "It is removed, because --rm asks for it."),
        (
            Decision("restart", "the restart policy is always", END + SECOND // 10),
            "It is restarted after 100 ms, because the restart policy is always.",
        ),
        (Decision("restart", "r"), "It is restarted, because r."),
    ],
)
def test_the_last_sentence_is_what_followed(decision: Decision, sentence: str) -> None:
    assert report_death(replace(BASE, decision=decision))[-1] == sentence


SHELL = ["/bin/sh", "-c", "python3 app.py; true"]


@pytest.mark.parametrize(
    ("certificate", "hint"),
    [
        pytest.param(BASE, None, id="an error of its own: nothing to say"),
        pytest.param(replace(BASE, exit_code=126), "execute bit", id="126"),
        pytest.param(replace(BASE, exit_code=127), "not found", id="127"),
        pytest.param(
            replace(BASE, cause=Cause.START_FAILED, exit_code=127, error='exec: "sho": executable file not found'),
            "not found",
            id="the-command",
        ),
        pytest.param(
            replace(BASE, cause=Cause.START_FAILED, exit_code=127, error="open /run/x/netns/1: no such file"),
            None,
            id="what-came-before-the-command",
        ),
        pytest.param(
            replace(
                BASE, cause=Cause.START_FAILED, exit_code=128, error="Bind for x failed: port is already allocated"
            ),
            "listens on that port",
            id="port taken",
        ),
        pytest.param(
            replace(BASE, cause=Cause.START_FAILED, exit_code=127, error='error mounting "/f": not a directory'),
            "mounted over a file",
            id="mount clash",
        ),
        pytest.param(
            replace(BASE, cause=Cause.OOM, exit_code=137, oom=Oom(1, 1, 1, True)), "more memory", id="137 with OOM"
        ),
        pytest.param(replace(BASE, oom=Oom(1, 1, 1, False)), "killed a child", id="OOM of a child"),
        pytest.param(replace(BASE, cause=Cause.SIGNAL, exit_code=137), "kill -9", id="137 without OOM"),
        pytest.param(replace(BASE, cause=Cause.SIGNAL, exit_code=143), "SIGTERM came from outside", id="143"),
        pytest.param(replace(BASE, cause=Cause.SIGNAL, exit_code=130), "SIGINT", id="130"),
        pytest.param(
            replace(BASE, cause=Cause.STOPPED, exit_code=137, signals=signals(10), command=SHELL),
            "does not pass signals on",
            id="shell form",
        ),
        pytest.param(
            replace(BASE, cause=Cause.STOPPED, exit_code=137, signals=signals(10), command=["sleep", "9"]),
            "no handler",
            id="exec form",
        ),
        pytest.param(
            replace(BASE, cause=Cause.STOPPED, exit_code=137, signals=signals(0), command=SHELL), None, id="stop -t 0"
        ),
        pytest.param(
            replace(BASE, exit_code=0, restart_policy="on-failure"), "0 is no failure", id="exit 0 under on-failure"
        ),
        pytest.param(replace(BASE, exit_code=0, restart_policy="no"), None, id="exit 0 otherwise"),
    ],
)
def test_hints_where_the_cause_is_well_known(certificate: Certificate, hint: str | None) -> None:
    found = hints(certificate)
    assert (len(found) == 1 and hint in found[0]) if hint else found == []


@pytest.mark.parametrize(
    ("command", "shell"),
    [
        (SHELL, True),
        (["bash", "-c", "x"], True),
        (["/bin/sh", "run.sh"], False),
        (["sh", "-c"], False),
        (["python3", "-c", "x"], False),
        ([], False),
    ],
)
def test_shell_forms(command: list[str], shell: bool) -> None:
    assert has_shell_form(command) == shell


def test_askers() -> None:
    assert describe_requester(CLIENT) == "`docker stop web` (pid 812, uid 0)"
    assert describe_requester(Requester("client", uid=0, pid=3)) == "`a client` (pid 3, uid 0)"
    assert describe_requester(Requester("client", subject="O=Ops, CN=alice")) == "O=Ops, CN=alice over TLS"
    assert describe_requester(Requester("client")) == "an API client"
    assert describe_requester(Requester("nobody")) == "nobody"
    assert describe_requester(Requester("update")) == "the update"


@pytest.mark.parametrize(
    ("ns", "text"),
    [
        (-1, "0 ms"),
        (850 * 10**6, "850 ms"),
        (round(12.34 * SECOND), "12.3 s"),
        (245 * SECOND, "4 min 5 s"),
        (3 * 3600 * SECOND + 120 * SECOND, "3 h 2 min"),
        (5 * 86400 * SECOND + 3600 * SECOND, "5 d 1 h"),
    ],
)
def test_durations(ns: int, text: str) -> None:
    assert format_ns(ns) == text


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (1023, "1023 B"), (1024, "1 KiB"), (6 << 20, "6 MiB"), (3 << 29, "1.5 GiB")]
)
def test_sizes(count: int, text: str) -> None:
    assert format_bytes(count) == text
