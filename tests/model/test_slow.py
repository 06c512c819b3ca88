"""D1-D4, D7, D12, D13, D19, D21, C1, C2, R1, R2, E1: however slow readers are, every event of theirs is right."""

import pytest
from model.slow import one_course
from proof import amount

pytestmark = pytest.mark.slow

# Seeded courses in each part, by how many steps they have.
COURSES = {30: amount(80, 3_000), 100: amount(60, 1_500), 300: amount(10, 200)}


@pytest.mark.parametrize("part", range(amount(1, 10)))
@pytest.mark.parametrize("length", COURSES)
def test_however_slow_its_readers_are_every_event_is_right(length: int, part: int) -> None:
    """A failure says how to replay it."""
    number = COURSES[length]
    judged = sum(one_course(seed, length) for seed in range(part * number, (part + 1) * number))
    assert judged > 2 * number
