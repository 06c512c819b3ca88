"""What the demonstration is judged by finds every kind of mistake that a subscription could make."""

import pytest

from trio_stream.cli._audit import Point, Segment, State, Truth, View
from trio_stream.stores import Commit, Delete, Put

LOG = [
    Commit(3, (Put("jobs", "a", 1), Put("jobs", "b", 1))),
    Commit(4, (Put("other", "a", 9),)),
    Commit(5, (Put("jobs", "a", 2),)),
    Commit(8, (Delete("jobs", "a"), Delete("jobs", "c"))),
]


def states() -> dict[int, int]:
    """The digests after the commits of LOG."""
    state = State()
    digests = {0: state.digest}
    state.put("a", 1)
    state.put("b", 1)
    digests[3] = state.digest
    state.put("a", 2)
    digests[5] = state.digest
    state.delete("a")
    digests[8] = state.digest
    return digests


def problems(*points: tuple[int, int], view: View = View()) -> list[str]:  # noqa: B008 - immutable
    truth = Truth(view)
    for commit in LOG:
        truth.apply(commit, "jobs")
    return list(truth.check(Segment(view, [Point(*point) for point in points])))


def test_what_agrees_is_right_wherever_it_begins_and_ends() -> None:
    digest = states()
    everything = [(3, digest[3]), (5, digest[5]), (8, digest[8])]
    for start in range(3):
        for end in range(start + 1, 4):
            assert problems(*everything[start:end]) == []
    assert problems((4, digest[3]), *everything[1:]) == []


@pytest.mark.parametrize(
    ("points", "problem"),
    [
        ([(3, 5)], "a wrong state at index 3, where it began"),
        ([(3, 3), (5, 3)], "a wrong state at index 5"),
        ([(3, 3), (8, 8)], "index 8 received where 5 was committed"),
        ([(3, 3), (4, 3), (5, 5)], "index 4 received where 5 was committed"),
        ([(3, 3), (5, 5), (5, 5)], "changes were lost, or came twice, at its end"),
        ([(3, 3), (8, 8), (5, 5)], "index 8 received where 5 was committed"),
    ],
)
def test_what_differs_is_found(points: list[tuple[int, int]], problem: str) -> None:
    digest = states()
    assert problems(*((index, digest[state]) for index, state in points)) == [problem]


def test_a_view_is_compared_with_what_it_shows() -> None:
    state = State()
    state.put("b", 1)
    assert problems((3, state.digest), (5, state.digest), view=View("b")) != []
    assert problems((3, state.digest), view=View("b")) == []


def test_a_state_that_was_cleared_is_that_of_the_beginning() -> None:
    state = State()
    state.put("a", [1])
    state.clear()
    assert (state.entries, state.digest) == ({}, State().digest)
