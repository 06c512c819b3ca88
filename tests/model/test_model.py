"""D1-D14, D16, D18: whatever is done in whatever order, the publisher does what the model of it says."""

import os

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test
from model.machine import PublisherMachine
from proof import amount

# The first failure found, as it is: what tries mutants only wants to know that there is one.
QUICK = (Phase.generate,) if os.environ.get("TRIO_STREAM_FIRST_FAILURE") else tuple(Phase)
EXAMPLES = amount(150, 250)
STEPS = amount(40, 60)  # rules in one example, at most


@pytest.mark.slow
@pytest.mark.parametrize("part", range(amount(1, 10)))
def test_whatever_is_done_the_publisher_does_what_the_model_says(part: int) -> None:
    """D1, D2, D3, D4, D5, D6, D7, D8, D9, D11, D12, D13, D14, D16, D18.

    Hypothesis shows the shortest course of events that fails, and `@reproduce_failure` for it.
    """
    run_state_machine_as_test(
        PublisherMachine,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=STEPS,
            print_blob=True,
            phases=QUICK,
            report_multiple_bugs=False,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
        ),
    )
