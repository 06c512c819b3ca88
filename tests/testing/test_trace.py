"""`check_trace`: what it accepts, and the promise that it names for each kind of broken trace."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
from catalogue import HEALTH, JOBS, Health, apply, event
from hypothesis import given, strategies as st

from trio_stream import Event, Framing, PayloadEvents, SubscribeRequest
from trio_stream.testing import Model, PromiseBroken, check_trace

Trace = list[Event[Health]]

COMMITS: Sequence[Sequence[Event[Health]]] = [
    [event(1, "web", "a")],
    [event(2, "db", "b"), event(2, "web", "b")],
    [event(3, "build", "c", topic=JOBS)],
    [event(4, "web", "d"), event(4, "web", "e")],
    [event(6, "web", None)],
    [event(7, "web", "g"), event(7, "mail", "g")],
]
EVERYTHING = SubscribeRequest(HEALTH)
WEB = SubscribeRequest(HEALTH, "web")
MARKER = Event[Health](HEALTH, 0, Framing.NEW_SNAPSHOT_TO_FOLLOW)


def end(index: int) -> Event[Health]:
    return Event(HEALTH, index, Framing.END_OF_SNAPSHOT)


def batch(*events: Event[Health]) -> Event[Health]:
    return Event(events[0].topic, events[0].index, PayloadEvents(events))


def model(request: SubscribeRequest[Health] = WEB, resets: bool = False) -> Model[Health]:
    return Model(request=request, commits=COMMITS, apply=apply, resets=resets)


SNAPSHOT = [event(2, "web", "b"), end(3)]
LIVE = [batch(*COMMITS[3]), event(6, "web", None), event(7, "web", "g")]
WHOLE = [*SNAPSHOT, *LIVE]


@pytest.mark.parametrize("length", range(len(WHOLE) + 1))
def test_every_beginning_of_a_right_trace_is_right(length: int) -> None:
    check_trace(WHOLE[:length], model())


@pytest.mark.parametrize(
    ("request_", "trace"),
    [
        (WEB, WHOLE),
        (WEB, [end(0), event(1, "web", "a"), event(2, "web", "b"), *LIVE]),
        (WEB, [event(7, "web", "g"), end(7)]),
        (replace(WEB, index=3), LIVE),
        (replace(WEB, index=7), []),
        (replace(WEB, index=5), LIVE[1:]),
        (replace(WEB, index=1), [MARKER, *WHOLE]),
        (EVERYTHING, [event(2, "web", "b"), event(2, "db", "b"), end(2), *LIVE[:2], batch(*COMMITS[5])]),
        (SubscribeRequest(HEALTH, "nobody"), [end(3)]),
    ],
)
def test_a_right_trace_of_each_kind_is_complete(request_: SubscribeRequest[Health], trace: Trace) -> None:
    check_trace(trace, model(request_), upto=7)


def test_a_reset_is_right_where_it_was_asked_for() -> None:
    trace = [*WHOLE[:3], MARKER, event(4, "web", "e"), end(5), *LIVE[1:]]
    check_trace(trace, model(resets=True), upto=7)
    with pytest.raises(PromiseBroken, match="D5 at index 4"):
        check_trace(trace, model())


def test_a_reset_is_right_before_anything_else_was_received() -> None:
    """The history may have passed the first snapshot by then."""
    check_trace([MARKER, *WHOLE], model(resets=True), upto=7)


def test_what_a_reader_may_not_see_must_not_come() -> None:
    """D9: events of the blank key, of which the reader may see "web" only."""
    limited = Model(request=EVERYTHING, commits=COMMITS, apply=apply, authorizer=frozenset({"web"}))
    seen = [event(2, "web", "b"), end(2), LIVE[0], LIVE[1], batch(COMMITS[5][0])]
    check_trace(seen, limited, upto=7)
    for trace in ([event(2, "db", "b"), end(2)], [*seen[:-1], batch(*COMMITS[5])]):
        with pytest.raises(PromiseBroken, match=r"D[34] at index"):
            check_trace(trace, limited)


def test_a_state_from_before_the_first_commit_counts() -> None:
    begun = Model(
        request=WEB, commits=COMMITS[3:], apply=apply, initial=[event(1, "web", "old"), event(1, "db")]
    )
    check_trace([event(1, "web", "old"), end(3), *LIVE], begun, upto=7)


def test_commits_may_be_added_between_two_checks() -> None:
    growing = list(COMMITS[:3])
    checked = Model(request=WEB, commits=growing, apply=apply)
    check_trace(SNAPSHOT, checked, upto=3)
    growing += COMMITS[3:]
    check_trace(WHOLE, checked, upto=7)


BROKEN: dict[str, tuple[str, int | None, Trace]] = {
    "a gap": ("D3", 4, [*SNAPSHOT, *LIVE[1:]]),
    "a gap at the end": ("D3", 7, WHOLE[:-1]),
    "a change delivered twice": ("D3", 6, [*WHOLE[:4], WHOLE[3], *WHOLE[4:]]),
    "two changes in the wrong order": ("D3", 4, [*SNAPSHOT, LIVE[1], LIVE[0], LIVE[2]]),
    "an older change again": ("D2", 4, [*WHOLE, LIVE[0]]),
    "a late event behind the snapshot": ("D2", 2, [event(2, "web", "b"), end(3), event(2, "web", "b")]),
    "a commit of another key": ("D4", 7, [*WHOLE[:-1], event(7, "mail", "g")]),
    "an event of another topic": ("D3", 3, [*SNAPSHOT, event(3, "build", "c", topic=JOBS)]),
    "an event of no commit": ("D3", 5, [*SNAPSHOT, LIVE[0], event(5, "web", "x")]),
    "a commit with a part of another topic": (
        "D4",
        7,
        [*WHOLE[:-1], batch(WHOLE[-1], event(7, "web", topic=JOBS))],
    ),
    "another value": ("D4", 6, [*SNAPSHOT, LIVE[0], event(6, "web", "x")]),
    "half of a commit": ("D4", 4, [*SNAPSHOT, event(4, "web", "d")]),
    "a commit in the wrong order": ("D4", 4, [*SNAPSHOT, batch(*reversed(COMMITS[3]))]),
    "a commit with more than was asked for": ("D4", 7, [*SNAPSHOT, *LIVE[:2], batch(*COMMITS[5])]),
    "a batch of one": ("D4", 6, [*SNAPSHOT, LIVE[0], batch(LIVE[1])]),
    "a snapshot that lacks something": ("D1", 3, [end(3)]),
    "a snapshot of another index": ("D1", 3, [event(1, "web", "a"), end(3)]),
    "a snapshot with what was deleted": ("D1", 6, [event(4, "web", "e"), end(6)]),
    "two snapshots merged": ("D1", 6, [event(2, "web", "b"), event(4, "web", "e"), end(6)]),
    "a snapshot with another key": ("D3", 2, [event(2, "db", "b"), event(2, "web", "b"), end(3)]),
    "no end-of-snapshot": ("D5", None, [event(2, "web", "b")]),
    "a second end-of-snapshot": ("D5", 3, [*SNAPSHOT, end(3)]),
    "new-snapshot-to-follow for a fresh request": ("D5", 0, [MARKER, *WHOLE]),
    "new-snapshot-to-follow twice": ("D5", 0, [MARKER, MARKER]),
    "new-snapshot-to-follow later": ("D5", 4, [*WHOLE[:3], MARKER]),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_trace_is_refused_with_the_promise_and_the_index(name: str) -> None:
    promise, index, trace = BROKEN[name]
    with pytest.raises(PromiseBroken) as caught:
        check_trace(trace, model(), upto=7)
    assert (caught.value.promise, caught.value.index) == (promise, index)
    assert str(caught.value).startswith(
        f"{promise}" + (f" at index {index}: " if index is not None else ": ")
    )


@pytest.mark.parametrize(
    ("trace", "promise"),
    [
        ([end(3)], "D5"),
        ([event(2, "web", "b")], "D2"),
        ([LIVE[1]], "D3"),
        ([replace(MARKER, index=3)], "D5"),
    ],
    ids=["a snapshot without its marker", "an event from before", "a gap", "a marker with an index"],
)
def test_a_broken_answer_to_a_resume_is_refused(trace: Trace, promise: str) -> None:
    with pytest.raises(PromiseBroken, match=promise):
        check_trace(trace, model(replace(WEB, index=3)))


def test_a_commit_in_two_events_is_torn() -> None:
    """D4: also where the first of them is all that was asked for."""
    halves = [event(2, "web", "b"), event(2, "db", "b")]
    checked = Model(request=EVERYTHING, commits=[[halves[0]]], apply=apply)
    with pytest.raises(PromiseBroken, match="D4 at index 2: one commit in two events"):
        check_trace([end(0), *halves], checked)


@given(st.integers(0, len(LIVE) - 1), st.integers(0, len(LIVE) - 1))
def test_no_loss_exchange_or_doubling_of_changes_goes_unnoticed(first: int, second: int) -> None:
    damaged = [LIVE[:first] + LIVE[first + 1 :], LIVE[: first + 1] + LIVE[first:]]
    if first != second:
        exchanged = list(LIVE)
        exchanged[first], exchanged[second] = exchanged[second], exchanged[first]
        damaged.append(exchanged)
    for changes in damaged:
        with pytest.raises(PromiseBroken):
            check_trace([*SNAPSHOT, *changes], model(), upto=7)


def test_marks_that_publish_was_given_make_no_difference() -> None:
    marked = [replace(each, mark=f"m{each.index}") for each in (event(6, "web", None), event(7, "web", "g"))]
    check_trace([*SNAPSHOT, LIVE[0], *marked], model(), upto=7)


def test_a_mark_of_a_commit_is_compared() -> None:
    commits = [[event(1, "web")], [replace(event(2, "web"), mark="m2")]]
    marked = Model(request=WEB, commits=commits, apply=apply)
    check_trace([end(0), event(1, "web"), *commits[1]], marked, upto=2)
    for mark in ("", "another"):
        with pytest.raises(
            PromiseBroken, match=r"D4 at index 2: the commit is .* with mark 'm2', but .* came"
        ):
            check_trace([end(0), event(1, "web"), replace(commits[1][0], mark=mark)], marked)
