"""`check_trace` of readers with rights and of those that conflate: what it accepts, and how it names what is wrong."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import pytest
from catalogue import HEALTH, JOBS, Catalogue, Health, event
from hypothesis import given, settings, strategies as st
from scenes import quiet
from typing_extensions import override

from trio_stream import Event, Framing, PayloadEvents, Source, SubscribeRequest, open_publisher
from trio_stream.testing import Model, PromiseBroken, State, check_trace, collect

Trace = list[Event[Health]]


@dataclass(frozen=True, slots=True)
class Row(Health):
    """A service that says what it is when it is withdrawn."""

    @override
    def withdrawn(self) -> "Row":
        return replace(self, value=None)


def put(index: int, key: str, value: str | None, previous: str | None = None) -> Event[Health]:
    return Event(HEALTH, index, Row(key, value), previous=Row(key, previous) if previous else None)


def got(index: int, key: str, value: str | None) -> Event[Health]:
    """As a subscription returns it."""
    return Event(HEALTH, index, Row(key, value))


def batch(*events: Event[Health], conflated: bool = False) -> Event[Health]:
    return Event(HEALTH, events[-1].index, PayloadEvents(events, conflated))


def end(index: int) -> Event[Health]:
    return Event(HEALTH, index, Framing.END_OF_SNAPSHOT)


MARKER = Event[Health](HEALTH, 0, Framing.NEW_SNAPSHOT_TO_FOLLOW)


def apply(state: State, received: Event[Health]) -> None:
    payload = received.payload
    assert isinstance(payload, Row)
    if payload.value is None:
        state.pop(payload.key, None)
    else:
        state[payload.key] = payload.value


# `web` comes into sight and leaves it; `db` is never seen; `mail` is deleted while it is seen.
COMMITS: Sequence[Sequence[Event[Health]]] = [
    [put(1, "web", "dark"), put(1, "mail", "1")],
    [put(2, "web", "1", "dark"), put(2, "db", "dark")],
    [put(3, "web", "2", "1")],
    [put(4, "web", "dark", "2"), put(4, "db", "dark", "dark")],
    [put(5, "mail", None, "1")],
    [put(6, "web", None, "dark"), put(6, "db", None, "dark")],
    [put(7, "web", "3")],
]
LIVE = [
    batch(got(2, "web", "1")),
    got(3, "web", "2"),
    batch(got(4, "web", None)),
    got(5, "mail", None),
    got(7, "web", "3"),
]
WHOLE = [got(1, "mail", "1"), end(1), *LIVE]
EVERYTHING = SubscribeRequest(HEALTH)


def is_light(payload: Health) -> bool:
    return payload.value != "dark"


def filtered(request: SubscribeRequest[Health] = EVERYTHING) -> Model[Health]:
    return Model(request=request, commits=COMMITS, apply=apply, where=is_light)


def conflating(
    where: Callable[[Health], bool] | None = None, request: SubscribeRequest[Health] = EVERYTHING
) -> Model[Health]:
    return Model(request=request, commits=COMMITS, apply=apply, where=where, row=lambda payload: payload.key)


@pytest.mark.parametrize("length", range(len(WHOLE) + 1))
def test_every_beginning_of_a_right_trace_is_right(length: int) -> None:
    """D19."""
    check_trace(WHOLE[:length], filtered())


@pytest.mark.parametrize("index", range(1, 8))
def test_a_right_trace_is_right_from_every_snapshot_and_resume(index: int) -> None:
    """D19: they agree at every index."""
    state = filtered().state(index)
    live = [each for each in LIVE if each.index > index]
    check_trace(
        [*(got(1, key, value) for key, value in state.items()), end(index), *live], filtered(), upto=7
    )
    check_trace(live, filtered(replace(EVERYTHING, index=index)), upto=7)


def test_an_authorizer_may_look_at_the_value_where_events_say_what_they_replace() -> None:
    """D19."""
    commits = [[put(1, "web", "1")], [put(2, "web", "2", "1")], [put(3, "web", "1", "2")]]
    model = Model[Health](request=EVERYTHING, commits=commits, apply=apply, authorizer=frozenset({"web=1"}))
    check_trace([got(1, "web", "1"), end(1), got(2, "web", None), got(3, "web", "1")], model, upto=3)
    with pytest.raises(PromiseBroken, match="D19 at index 2"):
        check_trace([got(1, "web", "1"), end(1), got(2, "web", "2")], model)


@pytest.mark.parametrize(
    ("trace", "broken"),
    [
        ([*WHOLE[:2], batch(got(2, "web", "1"), got(2, "db", "dark"))], "D19 at index 2"),
        ([*WHOLE[:3], got(3, "web", None)], "D19 at index 3"),
        ([*WHOLE[:4], batch(got(4, "web", "dark"))], "D19 at index 4"),
        ([*WHOLE[:4], LIVE[3]], "D3 at index 4: lost"),
        ([*WHOLE[:6], batch(got(6, "web", None))], "D3 at index 6: nothing that"),
        ([*WHOLE[:4], put(4, "web", None, "2")], "D19 at index 4: it says what it replaces"),
        ([*WHOLE[:2], batch(put(2, "web", "1", "dark"))], "D19 at index 2: it says what it replaces"),
        ([got(1, "web", "dark"), end(1)], "D19 at index 1: the snapshot has"),
        ([got(1, "web", "1"), end(1)], "D1 at index 1"),
    ],
)
def test_a_broken_trace_of_a_reader_with_a_filter_is_named(trace: Trace, broken: str) -> None:
    """D19."""
    with pytest.raises(PromiseBroken, match=broken):
        check_trace(trace, filtered())


def test_who_has_no_rights_gets_every_event_as_it_is() -> None:
    """D19."""
    model = Model(request=EVERYTHING, commits=COMMITS, apply=apply)
    live = [
        batch(*(replace(each, previous=None) for each in commit))
        if len(commit) > 1
        else replace(commit[0], previous=None)
        for commit in COMMITS
    ]
    check_trace([end(0), *live], model, upto=7)


# Conflation.


def test_of_each_row_the_newest_is_right_in_the_place_of_all() -> None:
    """D21."""
    start = [got(1, "web", "dark"), got(1, "mail", "1"), end(1)]
    check_trace(
        [*start, batch(got(5, "mail", None), got(6, "web", None), got(6, "db", None), conflated=True)],
        conflating(),
    )
    check_trace(
        [
            *start,
            batch(got(2, "web", "1"), got(2, "db", "dark")),
            batch(got(4, "web", "dark"), got(4, "db", "dark"), got(5, "mail", None), conflated=True),
            batch(got(6, "db", None), got(7, "web", "3"), conflated=True),
        ],
        conflating(),
        upto=7,
    )


def test_with_a_filter_it_is_the_last_payload_against_the_first_that_was_replaced() -> None:
    """D19, D21: what came into sight and left it again in between is nothing."""
    start = [got(1, "mail", "1"), end(1)]
    check_trace(
        [*start, batch(got(5, "mail", None), got(7, "web", "3"), conflated=True)],
        conflating(is_light),
        upto=7,
    )
    check_trace(
        [*start, batch(got(5, "mail", None), conflated=True), got(7, "web", "3")],
        conflating(is_light),
        upto=7,
    )
    check_trace(
        [*start, LIVE[0], batch(got(4, "web", None), conflated=True), LIVE[3]], conflating(is_light), upto=6
    )


def test_what_came_and_went_while_the_reader_was_behind_is_not_missing() -> None:
    """D21: for one with a filter."""
    commits = [
        [put(1, "a", "1", "dark")],
        [put(2, "a", "dark", "1")],
        [put(3, "b", "1")],
        [put(4, "a", "1", "dark")],
        [put(5, "a", None, "1")],
    ]
    model = Model[Health](
        request=EVERYTHING, commits=commits, apply=apply, where=is_light, row=lambda each: each.key
    )
    check_trace([end(0), got(3, "b", "1")], model, upto=5)
    check_trace([end(0), batch(got(3, "b", "1"), conflated=True)], model, upto=5)
    for trace in ([end(0)], [end(0), got(1, "a", "1"), got(3, "b", "1")]):
        with pytest.raises(PromiseBroken, match=r"D3 at index [12]"):
            check_trace(trace, model, upto=3)


def test_a_new_snapshot_may_come_at_any_time() -> None:
    """D21."""
    check_trace([end(0), MARKER, got(1, "mail", "1"), end(1)], conflating(is_light))
    check_trace([MARKER, got(1, "mail", "1"), end(1)], conflating(is_light))


BASE = [got(1, "web", "dark"), got(1, "mail", "1"), end(1)]


@pytest.mark.parametrize(
    ("event_", "broken"),
    [
        (
            batch(got(2, "web", "1"), got(2, "db", "dark"), got(3, "web", "2"), conflated=True),
            "D21 at index 3",
        ),
        (batch(got(3, "web", "2"), conflated=True), "D21 at index 3"),
        (batch(got(3, "web", "2"), got(2, "db", "dark"), conflated=True), "D21 at index 2"),
        (batch(got(2, "db", "dark"), got(3, "web", "1"), conflated=True), "D21 at index 3"),
        (got(3, "web", "2"), "D3 at index 2: lost"),
        (batch(got(1, "web", "dark"), conflated=True), "D2 at index 1: late"),
        (
            Event(
                HEALTH, 8, PayloadEvents([got(5, "mail", None), got(6, "db", None), got(7, "web", "3")], True)
            ),
            "D3 at index 8",
        ),
    ],
)
def test_a_conflated_event_that_is_not_right_is_named(event_: Event[Health], broken: str) -> None:
    """D21."""
    with pytest.raises(PromiseBroken, match=broken):
        check_trace([*BASE, event_], conflating())


def test_nobody_gets_a_conflated_event_who_did_not_ask_for_it() -> None:
    """D21."""
    model = Model(request=EVERYTHING, commits=COMMITS, apply=apply)
    with pytest.raises(PromiseBroken, match="D21 at index 3: nobody"):
        check_trace([*BASE, batch(got(2, "db", "dark"), got(3, "web", "2"), conflated=True)], model)


def test_rows_of_two_topics_are_two() -> None:
    """D21, D22."""
    commits = [[event(1, "a", "1")], [event(2, "a", "2", topic=JOBS)], [event(3, "a", "3")]]
    request = SubscribeRequest(HEALTH) | SubscribeRequest(JOBS)

    def fold(state: State, received: Event[Health]) -> None:
        payload = received.payload
        assert isinstance(payload, Health)
        state[received.topic, payload.key] = payload.value

    model = Model(request=request, commits=commits, apply=fold, row=lambda payload: payload.key)
    items = PayloadEvents([event(2, "a", "2", topic=JOBS), event(3, "a", "3")], True)
    check_trace([event(1, "a", "1"), end(1), Event(HEALTH, 3, items)], model, upto=3)


# The real thing.

steps = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["web", "db"]), st.sampled_from(["1", "2", "dark", None])),
        st.sampled_from(["read", "take"]),
    ),
    max_size=30,
)


@pytest.mark.anyio
@pytest.mark.parametrize("on_lag", ["close", "conflate"])
async def test_what_a_subscription_returns_passes(on_lag: str) -> None:
    """D19, D21: over random courses, with and without a filter."""
    await random_courses(on_lag)


@pytest.mark.anyio
async def test_what_a_reader_may_not_see_may_be_passed_before_it_is_behind() -> None:
    """D21: then the first payload that is known to be replaced is one of what came later."""
    course: list[object] = [("web", "dark"), ("web", None), "read", ("web", "2"), ("web", None), "take"]
    await follow(course, "conflate", is_light)


async def random_courses(on_lag: str) -> None:
    courses: list[list[object]] = []

    @settings(max_examples=60, database=None)
    @given(steps)
    def collect_courses(course: list[object]) -> None:
        courses.append(course)

    collect_courses()
    for course in courses:
        for where in (None, is_light):
            await follow(course, on_lag, where)


async def follow(course: list[object], on_lag: str, where: Callable[[Health], bool] | None) -> None:
    store = Catalogue()
    held: dict[str, str] = {}
    commits: list[list[Event[Health]]] = []
    source = Source(store.snapshot, row=lambda payload: payload.key)
    async with open_publisher({HEALTH: source}) as publisher:
        subscription = publisher.subscribe(
            EVERYTHING, where=where, on_lag="conflate" if on_lag == "conflate" else "close"
        )
        trace: Trace = await collect(subscription)
        for step in course:
            if step == "read":
                await collect(subscription, into=trace)
            elif step == "take":
                await quiet()
                if subscription.statistics().lag and where is None:
                    trace.append(subscription.receive_nowait())
            elif isinstance(step, tuple):
                key, value = step
                before = held.pop(key, None)
                if before is None and value is None:
                    continue
                if value is not None:
                    held[key] = value
                commits.append([put(len(commits) + 1, key, value, before)])
                publisher.publish(commits[-1])
        await collect(subscription, upto=len(commits), into=trace)
        model = Model[Health](
            request=EVERYTHING,
            commits=commits,
            apply=apply,
            where=where,
            row=(lambda payload: payload.key) if on_lag == "conflate" else None,
        )
        check_trace(trace, model, upto=len(commits))
