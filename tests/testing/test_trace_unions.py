"""`check_trace` of requests for several things at once: unions, prefixes and all namespaces."""

from collections.abc import Iterator, Sequence
from random import Random
from typing import Any

import pytest
from catalogue import HEALTH, JOBS, Health, event
from scenes import quiet

from trio_stream import (
    ALL,
    Event,
    Framing,
    PayloadEvents,
    SnapshotAppender,
    Source,
    Subject,
    SubscribeRequest,
    Topic,
    open_publisher,
)
from trio_stream.testing import Model, PromiseBroken, State, check_trace, collect

Trace = list[Event[Health]]
Request = SubscribeRequest[Health]

WEB = SubscribeRequest(HEALTH, "web")
UNION = WEB | SubscribeRequest(JOBS, "b", prefix=True, namespace=ALL)

COMMITS: Sequence[Sequence[Event[Health]]] = [
    [event(1, "web", "a"), event(1, "build", "a", topic=JOBS), event(1, "test", "a", topic=JOBS)],
    [event(2, "db", "b")],
    [event(3, "build", "c", topic=JOBS, namespace="blue"), event(3, "web", "c")],
    [event(4, "build", None, topic=JOBS)],
    [event(5, "web", "e"), event(5, "db", "e"), event(5, "web", "e", topic=JOBS)],
    [event(6, "web", "f"), event(6, "b", "f", topic=JOBS)],
]


def end(index: int, topic: Topic[Health] = HEALTH) -> Event[Health]:
    return Event(topic, index, Framing.END_OF_SNAPSHOT)


def batch(*events: Event[Health]) -> Event[Health]:
    return Event(events[0].topic, events[0].index, PayloadEvents(events))


def apply(state: State, single: Event[Health]) -> None:
    payload = single.payload
    assert isinstance(payload, Health)
    where = single.topic, payload.subject
    if payload.value is None:
        state.pop(where, None)
    else:
        state[where] = payload.value


def model(request: Request = UNION) -> Model[Health]:
    return Model(request=request, commits=COMMITS, apply=apply)


SNAPSHOT = [event(1, "web", "a"), event(1, "build", "a", topic=JOBS), end(2)]
LIVE = [batch(*COMMITS[2]), COMMITS[3][0], COMMITS[4][0], batch(*COMMITS[5])]
WHOLE = [*SNAPSHOT, *LIVE]


@pytest.mark.parametrize("length", range(len(WHOLE) + 1))
def test_every_beginning_of_a_right_trace_is_right(length: int) -> None:
    check_trace(WHOLE[:length], model())


@pytest.mark.parametrize(
    ("request_", "trace"),
    [
        (UNION, WHOLE),
        (UNION, [*SNAPSHOT[:2], end(2, JOBS), *LIVE]),
        (UNION.after(None), [*SNAPSHOT[1::-1], end(1), *LIVE]),
        (
            SubscribeRequest(HEALTH, "we", prefix=True),
            [event(1, "web", "a"), end(2), COMMITS[2][1], *LIVE[2:3], event(6, "web", "f")],
        ),
        (
            SubscribeRequest(JOBS, "build", namespace=ALL),
            [event(3, "build", "c", topic=JOBS, namespace="blue"), end(5, JOBS)],
        ),
    ],
    ids=("union", "eos of the other topic", "another order", "prefix", "all namespaces"),
)
def test_a_right_trace_of_each_kind_is_complete(request_: Request, trace: Trace) -> None:
    check_trace(trace, model(request_), upto=6)


def test_a_union_that_resumes_has_what_came_since() -> None:
    request = SubscribeRequest(interests=UNION.interests, index=3)
    check_trace(LIVE[1:], model(request), upto=6)
    with pytest.raises(PromiseBroken, match="D3 at index 4"):
        check_trace(LIVE[2:], model(request))


BROKEN: dict[str, tuple[str, int | None, Trace]] = {
    "one commit in two events, of two topics": ("D22", 3, [*SNAPSHOT, COMMITS[2][0], COMMITS[2][1]]),
    "the other topic's part later": ("D22", 3, [*SNAPSHOT, batch(*COMMITS[2]), COMMITS[2][1]]),
    "the other topic's part much later": ("D22", 3, [*WHOLE[:5], COMMITS[2][0]]),
    "topics in another order": ("D3", 4, [*WHOLE[:4], *LIVE[2:3], LIVE[1]]),
    "a commit of one topic lost": ("D3", 4, [*SNAPSHOT, LIVE[0], *LIVE[2:]]),
    "the parts of a commit in another order": ("D4", 3, [*SNAPSHOT, batch(*reversed(COMMITS[2]))]),
    "what the prefix does not cover": ("D22", 5, [*WHOLE[:5], batch(COMMITS[4][0], COMMITS[4][2])]),
    "what the prefix does not cover in the snapshot": ("D3", 1, [event(1, "test", "a", topic=JOBS)]),
    "another topic": ("D3", 1, [Event(Topic[Health]("third"), 1, Health("web", "a"))]),
    "a snapshot of two indexes": ("D1", 4, [*SNAPSHOT[:2], end(4)]),
    "an end of snapshot for each topic": ("D5", 2, [*SNAPSHOT, end(2, JOBS)]),
    "a gap at the end, in one topic": ("D3", 6, WHOLE[:-1]),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_broken_is_named(name: str) -> None:
    promise, index, trace = BROKEN[name]
    with pytest.raises(PromiseBroken) as broken:
        check_trace(trace, model(), upto=6)
    assert (broken.value.promise, broken.value.index) == (promise, index)


REQUESTS = [
    UNION,
    SubscribeRequest(HEALTH) | SubscribeRequest(JOBS),
    SubscribeRequest(HEALTH, namespace=ALL) | SubscribeRequest(JOBS, "a", prefix=True),
    SubscribeRequest(HEALTH, "a", prefix=True),
    SubscribeRequest(HEALTH, "a1", namespace=ALL, partition=ALL),
    SubscribeRequest(JOBS, namespace=ALL, partition="another"),
    SubscribeRequest(HEALTH, "a1")
    | SubscribeRequest(HEALTH, "b")
    | SubscribeRequest(HEALTH, "a", prefix=True, namespace="blue"),
]


def courses(seed: int, first: int, last: int) -> Iterator[list[Event[Health]]]:
    """Commits of one to four changes, over two topics and namespaces."""
    random = Random(seed)
    for index in range(first, last + 1):
        yield [
            event(
                index,
                random.choice(("a", "a1", "a2", "b", "build")),
                random.choice((None, f"{index}")),
                topic=random.choice((HEALTH, JOBS)),
                namespace=random.choice(("default", "blue")),
            )
            for _ in range(random.randint(1, 4))
        ]


@pytest.mark.anyio
@pytest.mark.parametrize("seed", range(5))
async def test_what_real_subscriptions_return_is_right(seed: int) -> None:
    """D22: from a fresh start, and after a resume."""
    commits: list[list[Event[Health]]] = []

    async def snapshot(request: Request, appender: SnapshotAppender[Health]) -> int:
        index = len(commits)
        state: dict[Any, Event[Health]] = {}
        for commit in commits:
            for single in commit:
                apply_to_rows(state, single)
        for single in state.values():
            if request.covers(single.topic, subject_of(single)):
                await appender.append([single])
        return index

    source = Source(snapshot, wide=True)
    async with open_publisher({HEALTH: source, JOBS: source}) as publisher:

        def commit(upto: int) -> None:
            for each in courses(seed, len(commits) + 1, upto):
                commits.append(each)
                publisher.publish(each)

        commit(20)
        for request in REQUESTS:
            first = len(commits)
            subscription = publisher.subscribe(request)
            commit(first + 10)
            received = await collect(subscription, upto=first + 10)
            check_trace(received, Model(request=request, commits=commits, apply=apply), upto=first + 10)
            resumed = subscription.resume_request()
            subscription.unsubscribe()
            commit(first + 15)
            async with publisher.subscribe(resumed) as second:
                received = await collect(second, upto=first + 15)
            check_trace(received, Model(request=resumed, commits=commits, apply=apply), upto=first + 15)
        await quiet()


def subject_of(single: Event[Health]) -> Subject:
    assert isinstance(single.payload, Health)
    return single.payload.subject


def apply_to_rows(state: dict[Any, Event[Health]], single: Event[Health]) -> None:
    assert isinstance(single.payload, Health)
    where = single.topic, single.payload.subject
    if single.payload.value is None:
        state.pop(where, None)
    else:
        state[where] = single
