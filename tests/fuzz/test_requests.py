"""Requests, cursors and commits of any shape: a typed error at the call and nothing changed, or the right answer."""

from collections.abc import Sequence
from typing import Any

import anyio
import pytest
from catalogue import HEALTH, JOBS, Health, apply, event
from fuzz.fuzzing import fuzzed, numbers, objects, texts
from hypothesis import given, strategies as st
from scenes import opened

from trio_stream import (
    ClosedResourceError,
    Event,
    EventPublisher,
    Framing,
    InvalidCommitError,
    PayloadEvents,
    Subject,
    SubscribeRequest,
    Topic,
    UnknownTopicError,
)
from trio_stream.testing import Model, check_trace, collect

pytestmark = pytest.mark.slow

REFUSALS = (TypeError, ValueError, UnknownTopicError)


@fuzzed
@given(
    st.sampled_from([HEALTH, JOBS, "health", None]) | st.builds(Topic, st.text(min_size=1)),
    st.fixed_dictionaries(
        {},
        optional={
            "key": texts | objects,
            "namespace": texts | objects,
            "partition": texts | objects,
            "token": texts | objects,
            "index": numbers | objects,
            "epoch": texts | objects,
        },
    ),
)
def test_a_request_is_made_as_asked_or_refused(topic: Any, fields: dict[str, Any]) -> None:
    try:
        request = SubscribeRequest(topic, **fields)
    except REFUSALS:
        return
    assert request.topic is topic
    for name, value in fields.items():
        assert getattr(request, name) == value
    assert type(request.index) is int
    assert request.index >= 0
    assert isinstance(request.subject, Subject)
    assert hash(request) == hash(SubscribeRequest(topic, **fields))
    with EventLess() as publisher:
        try:
            publisher.subscribe(request).unsubscribe()
        except UnknownTopicError:
            assert topic not in (HEALTH, JOBS)


class EventLess:
    """A publisher that nobody runs: publish and subscribe work all the same."""

    def __enter__(self) -> EventPublisher:
        return EventPublisher({HEALTH: never, JOBS: never})

    def __exit__(self, *_: object) -> None:
        pass


async def never(request: object, snapshot: object) -> int:
    raise AssertionError


cursors = st.tuples(
    st.integers(0, 14) | numbers, st.sampled_from(["now", "before", "", None]) | st.text(max_size=5)
)


@fuzzed
@given(
    st.lists(st.sampled_from(["web", "db", "mail"]), min_size=1, max_size=10),
    st.lists(cursors, min_size=1, max_size=4),
    st.integers(1, 12),
)
def test_whatever_cursor_one_comes_with_the_stream_is_right(
    keys: Sequence[str], asked: Sequence[tuple[int, str | None]], history: int
) -> None:
    """D1 to D7: resume, or marker and snapshot; an index from the future gets nothing that is older."""
    anyio.run(follow_from, keys, asked, history, backend="trio")


async def follow_from(keys: Sequence[str], asked: Sequence[tuple[int, str | None]], history: int) -> None:
    async with opened(history=history, epoch="now") as (store, publisher):
        commits: list[list[Event[Health]]] = []

        def commit(key: str) -> None:
            commits.append([event(store.commit((key, f"{len(commits)}")), key, f"{len(commits)}")])

        for key in keys:
            commit(key)
        for index, epoch in asked:
            try:
                request = SubscribeRequest(HEALTH, "web", index=index, epoch=epoch)
            except ValueError:
                assert index < 0
                continue
            async with publisher.subscribe(request) as subscription:
                events = await collect(subscription)
                commit("web")
                events += await collect(subscription, upto=publisher.index)
            check_trace(events, Model(request=request, commits=commits, apply=apply), upto=publisher.index)
            is_ours = epoch in (None, "now")
            newest = publisher.index - 1
            resumes = (
                index > 0
                and is_ours
                and (newest - history <= index <= newest or (index > newest and epoch is not None))
            )
            assert bool(events and events[0].is_new_snapshot_to_follow) == (index > 0 and not resumes)


class Subjected:
    """A payload with any subject."""

    def __init__(self, subject: Any) -> None:
        self.subject = subject


odd_events: st.SearchStrategy[Any] = st.builds(
    Event,
    st.sampled_from([HEALTH, JOBS, Topic("unknown")]),
    st.integers(0, 5) | numbers | st.sampled_from([None, "1", 1.5, True]),
    st.builds(Health, st.sampled_from(["web", "db", ""]), st.text(max_size=2))
    | st.builds(Subjected, texts | objects)
    | st.sampled_from([Framing.END_OF_SNAPSHOT, PayloadEvents([])]),
)


@fuzzed
@given(st.lists(st.lists(odd_events | objects, max_size=3), max_size=6))
def test_a_commit_is_published_or_refused_and_then_nothing_has_changed(commits: list[list[Any]]) -> None:
    """D18, D4."""
    publisher = EventPublisher({HEALTH: never, JOBS: never}, epoch="now")
    for commit in commits:
        before = publisher.statistics()
        try:
            publisher.publish(commit)
        except (InvalidCommitError, UnknownTopicError, TypeError, AttributeError):
            assert publisher.statistics() == before
        else:
            indexes = {one.index for one in commit}
            assert publisher.index == (indexes.pop() if indexes else before.index)
            assert not indexes


@pytest.mark.parametrize("option", ["history", "snapshot_cache_ttl", "index", "epoch"])
@fuzzed
@given(value=objects)
def test_an_option_is_taken_or_refused(option: str, value: Any) -> None:
    try:
        publisher = EventPublisher({}, **{option: value})
    except (*REFUSALS, ClosedResourceError):
        return
    assert publisher.statistics().subscriptions == 0
