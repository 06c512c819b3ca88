"""D1-D7, D22: whatever is asked for together, and whatever is done, every event of every reader is right."""

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test
from model.interests_courses import one_course
from model.interests_machine import InterestsMachine
from model.test_model import QUICK
from proof import amount

pytestmark = pytest.mark.slow

EXAMPLES = amount(50, 250)
STEPS = amount(40, 60)  # rules in one example, at most
# Seeded courses in each part, by how many steps they have.
COURSES = {40: amount(60, 2_000), 120: amount(60, 1_000), 300: amount(10, 200)}


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


@pytest.mark.parametrize("part", range(amount(1, 10)))
@pytest.mark.parametrize("length", COURSES)
def test_in_a_course_of_many_steps_every_event_is_right(length: int, part: int) -> None:
    """The same promises; a failure says how to replay it, and to find the shortest part of it that fails."""
    number = COURSES[length]
    for seed in range(part * number, (part + 1) * number):
        one_course(seed, length)
