"""D18: what cannot be finished, and what cannot follow a finish: an error at the call, and nothing has changed."""

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from catalogue import HEALTH, JOBS, Health, event, kinds, ready
from finishes import LIVE, to_the_end
from scenes import opened
from typing_extensions import override

from trio_stream import (
    ALL,
    Event,
    EventPublisher,
    InvalidCommitError,
    NoOpEventPublisher,
    Subject,
    SubscribeRequest,
    Subscription,
    Topic,
    UnknownTopicError,
    close_subscription_event,
)

pytestmark = pytest.mark.anyio

Finish = Iterable[tuple[Topic[Any], Subject | str]]


@asynccontextmanager
async def unchanged(*, finished: bool = False) -> AsyncIterator[EventPublisher]:
    """A publisher at 2 over which what is inside has no effect: on those who read, on its index, on tokens."""
    async with opened(index=1, epoch="e") as (store, publisher):
        readers: dict[str, Subscription[Health]] = {
            "web": publisher.subscribe(LIVE),
            "db": publisher.subscribe(SubscribeRequest(HEALTH, "db", index=1)),
            "every key": publisher.subscribe(SubscribeRequest(HEALTH, index=1)),
            "job": publisher.subscribe(SubscribeRequest(JOBS, "web", index=1)),
        }
        store.commit(("web", "1"), finish=["web"] if finished else [])
        before = publisher.statistics()
        yield publisher
        assert publisher.statistics() == before
        store.commit(("db", "2"))
        expected = {"web": ["2:web=1"], "db": ["3:db=2"], "every key": ["2:web=1", "3:db=2"], "job": []}
        if finished:
            assert await to_the_end(readers.pop("web")) == (expected.pop("web"), 2)
        assert {name: kinds(ready(each)) for name, each in readers.items()} == expected
        if not finished:
            store.commit(("web", "3"), finish=["web"])
            assert await to_the_end(readers["web"]) == (["4:web=3"], 4)


CLOSING = close_subscription_event(["t"])


WRONG: dict[str, tuple[object, type[Exception]]] = {
    "nothing iterable": (7, TypeError),
    "a string": ("web", TypeError),
    "a pair that is not in a list": ((HEALTH, "web"), TypeError),
    "None": (None, TypeError),
    "strings": (["web"], TypeError),
    "only a topic": ([(HEALTH,)], TypeError),
    "three things": ([(HEALTH, "web", "default")], TypeError),
    "the name of a topic": ([("health", "web")], TypeError),
    "no topic": ([(None, "web")], TypeError),
    "no key": ([(HEALTH, None)], TypeError),
    "a number as a key": ([(HEALTH, 7)], TypeError),
    "bytes as a key": ([(HEALTH, b"web")], TypeError),
    "a plain tuple as a subject": ([(HEALTH, ("web", "default", "default"))], TypeError),
    "a subject of a number": ([(HEALTH, Subject(7))], TypeError),  # type: ignore[arg-type]
    "a subject of every namespace": ([(HEALTH, Subject("web", ALL))], TypeError),  # type: ignore[arg-type]
    "a blank key": ([(HEALTH, "")], ValueError),
    "a blank subject": ([(HEALTH, Subject())], ValueError),
    "a topic without a handler": ([(Topic[Health]("other"), "web")], UnknownTopicError),
    "one that is wrong behind one that is right": ([(HEALTH, "db"), (HEALTH, "")], ValueError),
}


@pytest.mark.parametrize("with_events", [True, False])
@pytest.mark.parametrize(("finish", "error"), WRONG.values(), ids=WRONG)
async def test_what_is_no_subject_cannot_be_finished(
    finish: Any, error: type[Exception], with_events: bool
) -> None:
    async with unchanged() as publisher:
        with pytest.raises(error):
            publisher.publish([CLOSING, event(3, "db")] if with_events else [CLOSING], index=3, finish=finish)


@pytest.mark.parametrize("events", [[], [CLOSING]], ids=["no events", "a close event"])
async def test_a_finish_needs_events_or_an_index(events: list[Event[Any]]) -> None:
    async with unchanged() as publisher:
        with pytest.raises(InvalidCommitError):
            publisher.publish(events, finish=[(HEALTH, "web")])


@pytest.mark.parametrize("index", [1, 2])
async def test_a_finish_needs_an_index_after_the_last(index: int) -> None:
    async with unchanged() as publisher:
        with pytest.raises(InvalidCommitError):
            publisher.publish([CLOSING], index=index, finish=[(HEALTH, "web")])
        with pytest.raises(InvalidCommitError):
            publisher.publish([CLOSING, event(index, "web")], finish=[(HEALTH, "web")])


async def test_a_finish_does_not_make_a_wrong_commit_right() -> None:
    async with unchanged() as publisher:
        for events in (
            [event(3, "web"), event(4, "web")],
            [Event(HEALTH, 3, "no payload")],
            [Event(Topic[Health]("other"), 3, Health("web"))],
        ):
            with pytest.raises((InvalidCommitError, UnknownTopicError)):
                publisher.publish([CLOSING, *events], finish=[(HEALTH, "web")])


async def test_what_is_given_to_finish_may_raise() -> None:
    def broken() -> Finish:
        yield HEALTH, "web"
        raise OSError("disk")

    async with unchanged() as publisher:
        with pytest.raises(OSError, match="disk"):
            publisher.publish([CLOSING, event(3, "web")], finish=broken())


async def test_an_empty_finish_is_none() -> None:
    async with unchanged() as publisher:
        publisher.publish((), finish=())
        publisher.publish([], finish=iter(()))


# What follows a finish.


async def test_an_event_of_a_finished_subject_is_refused_and_says_which() -> None:
    async with unchanged(finished=True) as publisher:
        with pytest.raises(InvalidCommitError, match="web"):
            publisher.publish([event(3, "web")])


async def test_a_commit_with_an_event_of_a_finished_subject_is_refused_as_a_whole() -> None:
    async with unchanged(finished=True) as publisher:
        with pytest.raises(InvalidCommitError, match="web"):
            publisher.publish([CLOSING, event(3, "db"), event(3, "web"), event(3, "web", topic=JOBS)])
        with pytest.raises(InvalidCommitError, match="web"):
            publisher.publish([CLOSING, event(3, "web")], finish=[(HEALTH, "web"), (HEALTH, "db")])
        with pytest.raises(InvalidCommitError, match="web"):
            publisher.publish([event(3, "db"), event(3, "web", None)], finish=[(HEALTH, "db")])


async def test_the_same_key_of_another_topic_or_namespace_is_another_subject() -> None:
    async with opened(index=1) as (_, publisher):
        publisher.publish((), index=2, finish=[(HEALTH, "web")])
        publisher.publish([event(3, "web", topic=JOBS)])
        publisher.publish([event(4, "web", namespace="prod")])
        publisher.publish([event(5, "webs"), event(5, "Web")])
        with pytest.raises(InvalidCommitError):
            publisher.publish([event(6, "web")])


async def test_a_payload_that_finishes_its_own_subject_while_it_is_asked_for_that_is_refused() -> None:
    """The commit is checked after its payloads were asked."""

    class Ending(Health):
        @property
        @override
        def subject(self) -> Subject:
            if publisher.index == 1:
                publisher.publish((), index=2, finish=[(HEALTH, "web")])
            return Subject("web")

    async with opened(index=1) as (_, publisher):
        reader = publisher.subscribe(LIVE)
        with pytest.raises(InvalidCommitError):
            publisher.publish([Event(HEALTH, 3, Ending("web"))])
        assert publisher.index == 2
        assert await to_the_end(reader) == ([], 2)


async def test_a_publisher_that_does_nothing_finishes_nothing() -> None:
    publisher = NoOpEventPublisher()
    publisher.publish([event(1, "web")], finish=[(HEALTH, "web")])
    publisher.publish((), index=2, finish=[(HEALTH, "web")])
