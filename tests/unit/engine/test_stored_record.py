"""The record on disk: what an earlier bennud wrote is read, and what is written is what it would have written."""

import msgspec
import pytest

from bennu.engine.record import Record
from bennu.engine.stored_record import StoredRecord, decode_record, encode_record
from bennu.lifecycle.death import Requester, SentSignal, Verb
from bennu.lifecycle.health import HealthState, HealthStatus
from bennu.lifecycle.life_model import LastEnd, Life, PendingOperation, Restarts, Run
from bennu.lifecycle.status import State

BY = Requester("client", uid=0, pid=573, command="docker restart web")
# As it was written before the fields of a life were in groups; configuration and host configuration are cut short.
OLD = (
    b'{"id":"c0ffee","name":"web","created_ns":1,"image_id":"sha256:1","path":"sleep","args":["600"],'
    b'"config":{"Image":"busybox","Labels":{"a":"b"}},"host_config":{"NetworkMode":"bridge"},'
    b'"endpoints":{"bridge":{}},"mounts":[{"Type":"volume","Name":"v","Source":"/v","Destination":"/a","Driver":"",'
    b'"Mode":"","RW":true,"Propagation":""}],"state":"paused","exit_code":null,"error":"e","oom_killed":true,'
    b'"oom_told":2,"started_at_ns":3,"finished_at_ns":4,"health":{"Status":"unhealthy","FailingStreak":5,'
    b'"Log":[{"Start":"s","End":"e","ExitCode":-1,"Output":"o"}]},"sandbox":{"sandbox_id":"s","netns":"/run/n",'
    b'"endpoints":[],"ports":[],"resolver":{"servers":[],"port":0},"requested_ports":[]},"pid":6,"boot_id":"boot",'
    b'"life":7,"restart_count":8,"restart_delay_ns":9,"restart_due_ns":10,"restart_cancelled":true,'
    b'"restarts_ns":[11,12],"crash_score":1.5,"scored_at_ns":13,"gave_up":true,"revive":true,"manually_stopped":true,'
    b'"started_before":true,"signals":[{"at_ns":14,"number":15,"by":{"kind":"client","uid":0,"pid":573,'
    b'"command":"docker restart web","subject":""},"verb":"restart"}],"unsent":15,"errand":{"verb":"restart",'
    b'"by":{"kind":"client","uid":0,"pid":573,"command":"docker restart web","subject":""},"unbegun":15,'
    b'"grace_s":10.0,"kill_at_ns":16,"for_good":false,"volumes":true},"pause_is_brief":true}'
)
NEWER = {"links", "oom_told_at_ns"}  # fields that later versions have added
LIFE = Life(
    state=State.PAUSED,
    ordinal=7,
    run=Run(
        pid=6,
        boot_id="boot",
        started_at_ns=3,
        health=HealthState(HealthStatus.UNHEALTHY, 5),
        signals=(SentSignal(14, 15, BY, Verb.RESTART),),
        undelivered=15,
        oom_told=2,
        restart_unhealthy=True,
        pause_is_brief=True,
    ),
    last_end=LastEnd(exit_code=None, finished_at_ns=4, error="e", oom_killed=True),
    restarts=Restarts(
        count=8,
        delay_ns=9,
        due_ns=10,
        cancelled=True,
        stopped_by_user=True,
        instants_ns=(11, 12),
        score=1.5,
        scored_at_ns=13,
        gave_up=True,
    ),
    pending=PendingOperation(
        verb=Verb.RESTART, by=BY, unbegun=15, grace_s=10.0, kill_at_ns=16, for_good=False, volumes=True
    ),
)


def test_what_an_earlier_bennud_wrote_is_read() -> None:
    record = decode_record(OLD)
    assert record.life == LIFE
    assert (record.name, record.config.image, record.host_config.network_mode) == ("web", "busybox", "bridge")
    assert record.sandbox is not None and record.sandbox.netns == "/run/n"
    assert [probe.output for probe in record.probes] == ["o"]


def test_an_earlier_bennud_would_have_written_the_same() -> None:
    before, after = msgspec.json.decode(OLD), msgspec.json.decode(encode_record(decode_record(OLD)))
    assert after["signals"][0].pop("disposition") == "unknown", "a new field, which earlier ones pass over"
    grown = ("config", "host_config", "endpoints", "sandbox")  # they were cut short above, or have newer fields
    assert {key: after["sandbox"][key] for key in before["sandbox"]} == before["sandbox"]
    assert {key: after[key] for key in before if key not in grown} == {
        key: value for key, value in before.items() if key not in grown
    }
    assert [key for key in after if key not in NEWER] == list(before)


def test_every_field_of_a_life_comes_back() -> None:
    assert decode_record(encode_record(decode_record(OLD))) == decode_record(OLD)
    untold = {"state", "life"} | {name for name, value in msgspec.json.decode(OLD).items() if value}
    assert untold == set(StoredRecord.__struct_fields__) - {"exit_code"} - NEWER, (
        "each field of OLD has another value than none"
    )


def test_a_record_of_the_first_version_that_has_nothing_of_a_life_is_one_that_was_created() -> None:
    fields = msgspec.json.decode(OLD)
    kept = ("id", "name", "created_ns", "image_id", "path", "args", "config", "host_config", "endpoints", "mounts")
    record = decode_record(msgspec.json.encode({key: fields[key] for key in kept}))
    assert record.life == Life()
    assert isinstance(record, Record)


def test_a_bind_mounts_options_are_found_in_what_its_client_asked_for() -> None:
    fields = msgspec.json.decode(OLD)
    asked = {"Type": "bind", "Source": "/s", "Target": "/a/", "ReadOnly": True, "BindOptions": {"NonRecursive": True}}
    fields["host_config"]["Mounts"] = [asked, {**asked, "Target": "/other"}]
    fields["mounts"] = [{"Type": "bind", "Destination": "/a"}, {"Type": "bind", "Destination": "/b"}]
    first, second = decode_record(msgspec.json.encode(fields)).mounts
    assert first.spec and first.spec.bind_options and first.spec.bind_options.non_recursive
    assert not second.spec


@pytest.mark.parametrize("value", [b"", b"{", b"[]", OLD.replace(b'"unhealthy"', b'"poorly"'), b'{"id":7}'])
def test_what_is_no_record_is_refused(value: bytes) -> None:
    with pytest.raises((msgspec.DecodeError, ValueError)):
        decode_record(value)
