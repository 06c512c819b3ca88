"""D1, D19: whatever a reader may see by its rights, at every index it holds the state under them."""

import pytest
from evidence import count
from model.rights import one_course
from proof import amount

pytestmark = pytest.mark.slow

# Seeded courses in each part, by how many steps they have; and how many comparisons each has on average, at least.
COURSES = {40: amount(15, 40), 120: amount(12, 40), 300: amount(1, 34)}
COMPARED = {40: 2, 120: 30, 300: 200}


@pytest.mark.parametrize("part", range(amount(1, 40)))
@pytest.mark.parametrize("length", COURSES)
def test_whatever_its_rights_are_a_reader_is_right_at_every_index(length: int, part: int) -> None:
    """D1, D2, D3, D4, D5, D6, D7, D9, D12, D19, D20, D22, D24; a failure says how to replay it."""
    number = COURSES[length]
    compared = sum(one_course(seed, length) for seed in range(part * number, (part + 1) * number))
    count("model", "states of readers with rights compared, at every index", compared)
    assert compared > number * COMPARED[length]
