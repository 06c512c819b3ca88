"""D1-D7, D22: whatever is asked for together, and whatever is done, every event of every reader is right."""

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test
from model.interests_machine import InterestsMachine
from model.test_model import QUICK
from proof import amount

EXAMPLES = amount(150, 400)
STEPS = amount(40, 60)  # rules in one example, at most


@pytest.mark.slow
@pytest.mark.parametrize("part", range(amount(1, 10)))
def test_whatever_is_asked_for_together_every_event_is_right(part: int) -> None:
    """D1, D2, D3, D4, D5, D6, D7, D8, D9, D11, D12, D13, D16, D18, D22, D24.

    Hypothesis shows the shortest course of events that fails, and `@reproduce_failure` for it.
    """
    run_state_machine_as_test(
        InterestsMachine,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=STEPS,
            print_blob=True,
            phases=QUICK,
            report_multiple_bugs=False,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
        ),
    )
