"""How much of a step's output is told: the limits and words of BuildKit."""

from bennu.build.steps.log_limit import KEPT, SIZE, SPEED, LogLimit

S = 10**9


def test_what_comes_slowly_is_told_whole() -> None:
    limit = LogLimit(0)
    assert b"".join(limit.pass_on(b"x" * 1000, second * S + 1) for second in range(300)) == b"x" * 300_000
    assert limit.kept() == b""


def test_a_flood_is_clipped_at_the_speed_and_told_on_when_time_has_passed() -> None:
    limit = LogLimit(0)
    assert limit.pass_on(b"x" * (SPEED + 5), 1) == b"x" * SPEED + b"\n[output clipped, log limit 200KiB/s reached]\n"
    assert limit.pass_on(b"more", 2) == b"", "said once"
    assert limit.pass_on(b"later", 2 * S) == b"later"


def test_the_whole_is_clipped_at_the_size() -> None:
    limit = LogLimit(0)
    told = limit.pass_on(b"x" * (SIZE + 1), 3600 * S)
    assert told == b"x" * SIZE + b"\n[output clipped, log limit 2MiB reached]\n"
    assert limit.pass_on(b"y", 7200 * S) == b""


def test_the_last_of_a_clipped_stream_is_kept_for_who_asks_why_it_failed() -> None:
    limit = LogLimit(0)
    limit.pass_on(b"x" * (SIZE + KEPT), 3600 * S)
    limit.pass_on(b"the end", 3600 * S)
    assert len(limit.kept()) == KEPT and limit.kept().endswith(b"xthe end")
