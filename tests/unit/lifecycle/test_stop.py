"""What a person's signal does beside reaching the process: every signal, with and without a declared stop signal."""

import pytest

from bennu.lifecycle.stop import KillEffect, effect_of_signal

SIGKILL = 9
SIGNALS = [*range(1, 32), *range(34, 65)]


@pytest.mark.parametrize("signal", SIGNALS)
def test_with_no_stop_signal_declared_any_signal_calls_the_policy_off_and_ends_a_pause(signal: int) -> None:
    assert effect_of_signal(None, signal, paused=True) == KillEffect(cancel_restart=True, unpause=True)


@pytest.mark.parametrize("declared", SIGNALS)
def test_with_one_declared_only_that_one_and_sigkill_do(declared: int) -> None:
    effects = {signal: effect_of_signal(declared, signal, paused=True) for signal in SIGNALS}
    assert {signal for signal, effect in effects.items() if effect.cancel_restart} == {declared, SIGKILL}
    assert all(effect.unpause == effect.cancel_restart for effect in effects.values())


@pytest.mark.parametrize("declared", [None, 10])
@pytest.mark.parametrize("signal", SIGNALS)
def test_what_is_not_paused_is_not_unpaused(declared: int | None, signal: int) -> None:
    assert not effect_of_signal(declared, signal, paused=False).unpause
