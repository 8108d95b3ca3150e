"""What a person's signal means beside reaching the process: every signal, with and without a declared stop signal."""

import pytest

from bennu.lifecycle.stop import asks_for_end, may_call_off

SIGINT, SIGKILL, SIGTERM = 2, 9, 15
SIGNALS = [*range(1, 32), *range(34, 65)]


def test_with_no_stop_signal_declared_any_signal_may_end_it_and_three_ask_for_that() -> None:
    assert all(may_call_off(None, signal) for signal in SIGNALS)
    assert {signal for signal in SIGNALS if asks_for_end(None, signal)} == {SIGINT, SIGKILL, SIGTERM}


@pytest.mark.parametrize("declared", SIGNALS)
def test_with_one_declared_only_that_one_and_sigkill_do(declared: int) -> None:
    assert {signal for signal in SIGNALS if may_call_off(declared, signal)} == {declared, SIGKILL}
    assert {signal for signal in SIGNALS if asks_for_end(declared, signal)} == {declared, SIGKILL}
