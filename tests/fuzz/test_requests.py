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
    ALL,
    ClosedResourceError,
    Cursor,
    Event,
    EventPublisher,
    Framing,
    Interest,
    InvalidCommitError,
    PayloadEvents,
    Source,
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
            "prefix": st.booleans() | objects,
            "namespace": texts | st.just(ALL) | objects,
            "partition": texts | st.just(ALL) | objects,
            "token": texts | objects,
            "index": numbers | objects,
            "epoch": texts | objects,
            "mark": texts | objects,
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
        if name != "prefix":
            assert getattr(request, name) == value
    assert request.prefix == (fields.get("prefix", False) and fields.get("key", "") != "")
    assert type(request.index) is int
    assert request.index >= 0
    is_wide = request.prefix or ALL in (request.namespace, request.partition)
    try:
        assert isinstance(request.subject, Subject)
    except ValueError:
        assert is_wide
    else:
        assert not is_wide
    assert hash(request) == hash(SubscribeRequest(topic, **fields))
    with EventLess() as publisher:
        try:
            publisher.subscribe(request).unsubscribe()
        except UnknownTopicError:
            assert topic not in (HEALTH, JOBS)
        except ValueError:
            assert topic == JOBS
            assert ALL in (request.namespace, request.partition)


interests = st.builds(
    Interest,
    st.sampled_from([HEALTH, JOBS]),
    st.sampled_from(["", "a", "ab", "abc", "b"]),
    st.booleans(),
    st.sampled_from(["", "x", ALL]),
    st.sampled_from(["", "y", ALL]),
)
subjects = st.builds(
    Subject,
    st.sampled_from(["", "a", "ab", "abc", "abcd", "b"]),
    st.sampled_from(["", "x", "z"]),
    st.sampled_from(["", "y", "z"]),
)


@fuzzed
@given(st.lists(interests, min_size=1, max_size=6), st.sampled_from([HEALTH, JOBS]), subjects)
def test_what_is_asked_for_together_is_what_each_asks_for(
    asked: list[Interest], topic: Topic[Health], subject: Subject
) -> None:
    """D22: whatever covers what; and whatever is left out is covered by the rest."""
    request = SubscribeRequest[Health](interests=asked)
    parts = [SubscribeRequest[Health](interests=(each,)) for each in asked]
    joined = parts[0]
    for part in parts[1:]:
        joined |= part
    assert joined == request == SubscribeRequest(interests=reversed(asked))
    assert SubscribeRequest[Health](interests=request.interests).interests == request.interests
    assert request.covers(topic, subject) == any(part.covers(topic, subject) for part in parts)
    assert request.covers(topic, subject) == any(_asks_for(each, topic, subject) for each in asked)


def _asks_for(interest: Interest, topic: Topic[Health], subject: Subject) -> bool:
    if interest.topic != topic:
        return False
    if interest.namespace not in (ALL, subject.namespace) or interest.partition not in (
        ALL,
        subject.partition,
    ):
        return False
    return not interest.key or (
        subject.key.startswith(interest.key) if interest.prefix else subject.key == interest.key
    )


@fuzzed
@given(numbers, texts, texts)
def test_the_text_of_a_cursor_is_that_cursor(index: int, epoch: str, mark: str) -> None:
    try:
        cursor = Cursor(index, epoch, mark)
    except ValueError:
        assert index < 0 or not epoch
        return
    assert Cursor.parse(str(cursor)) == cursor
    assert str(cursor).isascii()


@fuzzed
@given(texts | st.text("0123456789@.%aF", max_size=20))
def test_a_text_is_a_cursor_or_refused(text: str) -> None:
    try:
        cursor = Cursor.parse(text)
    except ValueError:
        return
    assert Cursor.parse(str(cursor)) == cursor


class EventLess:
    """A publisher that nobody runs: publish and subscribe work all the same."""

    def __enter__(self) -> EventPublisher:
        return EventPublisher({HEALTH: Source(never, wide=True), JOBS: never})

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
    mark=st.sampled_from(["", "", "", "m", "n"]) | texts | objects,
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
            marks = {one.mark for one in commit} - {""}
            assert len(marks) <= 1
            assert not commit or publisher.cursor.mark == (marks.pop() if marks else "")


@pytest.mark.parametrize(
    "option", ["history", "history_events", "snapshot_cache_ttl", "index", "epoch", "mark"]
)
@fuzzed
@given(value=objects)
def test_an_option_is_taken_or_refused(option: str, value: Any) -> None:
    try:
        publisher = EventPublisher({}, **{option: value})
    except (*REFUSALS, ClosedResourceError):
        return
    assert publisher.statistics().subscriptions == 0
