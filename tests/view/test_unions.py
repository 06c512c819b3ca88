"""Views of several topics, of prefixes and of all namespaces: their keys, their names, and who shares them."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, cast

import anyio
import pytest
from catalogue import HEALTH, JOBS, Catalogue, Health
from scenes import quiet
from typing_extensions import override
from view.wires import Exchange, is_gone, put, values, whole

from trio_stream import (
    ALL,
    Event,
    EventPublisher,
    Payload,
    Source,
    Subject,
    SubscribeRequest,
    Topic,
    open_publisher,
)
from trio_stream.view import KeyedReducer, View, ViewEnded, ViewPool, open_view

pytestmark = pytest.mark.anyio

BOTH = SubscribeRequest(HEALTH) | SubscribeRequest(JOBS)
EVERYWHERE = SubscribeRequest(HEALTH, namespace=ALL)
WEBS = SubscribeRequest(HEALTH, "web", prefix=True)


@asynccontextmanager
async def opened() -> AsyncIterator[tuple[Catalogue, EventPublisher]]:
    """A catalogue that knows prefixes and `ALL`, and its publisher."""
    store = Catalogue()
    source = Source(store.snapshot, wide=True)
    async with open_publisher({HEALTH: source, JOBS: source}) as publisher:
        store.publisher = publisher
        yield store, publisher


@asynccontextmanager
async def viewed(
    request: SubscribeRequest[Any], **options: Any
) -> AsyncIterator[tuple[Catalogue, View[Any, Health]]]:
    async with opened() as (store, publisher):
        store.commit(("web", "a"), ("web2", "a"), ("db", "a"))
        store.commit(("web", "b"), namespace="blue")
        store.commit(("web", "c"), topic=JOBS)
        view: View[Any, Health]
        async with open_view(publisher.subscribe, request, is_delete=is_gone, **options) as view:
            await view.wait_current()
            yield store, view


async def test_over_several_topics_a_key_says_topic_and_namespace() -> None:
    async with viewed(BOTH) as (store, view):
        assert values(view) == {
            (HEALTH, "default", "web"): "a",
            (HEALTH, "default", "web2"): "a",
            (HEALTH, "default", "db"): "a",
            (JOBS, "default", "web"): "c",
        }
        await view.wait_index(store.commit(("web", None), topic=JOBS))
        assert set(view) == {(HEALTH, "default", key) for key in ("web", "web2", "db")}


async def test_over_all_namespaces_a_key_says_topic_and_namespace() -> None:
    async with viewed(SubscribeRequest(HEALTH, "web", namespace=ALL)) as (_, view):
        assert values(view) == {(HEALTH, "default", "web"): "a", (HEALTH, "blue", "web"): "b"}


async def test_over_two_namespaces_a_key_says_topic_and_namespace() -> None:
    request = SubscribeRequest(HEALTH, "web2") | SubscribeRequest(HEALTH, namespace="blue")
    async with viewed(request) as (_, view):
        assert values(view) == {(HEALTH, "default", "web2"): "a", (HEALTH, "blue", "web"): "b"}


@pytest.mark.parametrize(
    "request_",
    [WEBS, SubscribeRequest(HEALTH, "web") | SubscribeRequest(HEALTH, "web2")],
    ids=("prefix", "union"),
)
async def test_within_one_namespace_a_key_is_as_ever(request_: SubscribeRequest[Health]) -> None:
    async with viewed(request_) as (store, view):
        assert values(view) == {"web": "a", "web2": "a"}
        await view.wait_index(store.commit(("web2", "z"), ("db", "z")))
        assert values(view) == {"web": "a", "web2": "z"}


@dataclass(frozen=True)
class Placed(Payload):
    """Somewhere in a partition."""

    key: str
    partition: str
    is_delete: bool = False

    @property
    @override
    def subject(self) -> Subject:
        return Subject(self.key, "blue", self.partition)

    @override
    def has_read_permission(self, authorizer: Any, /) -> bool:
        return True


async def test_over_several_partitions_a_key_says_the_partition_too() -> None:
    topic = Topic[Placed]("placed")
    exchange = Exchange()
    view: View[Any, Placed]
    async with open_view(exchange, SubscribeRequest(topic, namespace="blue", partition=ALL)) as view:
        exchange.wire.give(Event(topic, 1, Placed("a", "x")), Event(topic, 1, Placed("a", "y")), whole(1))
        await view.wait_current()
        assert dict(view) == {(topic, each, "blue", "a"): Placed("a", each) for each in "xy"}


class Plain:
    """A payload whose subject is a text."""

    key = "a"
    subject = "a"
    is_delete = False


async def test_a_subject_that_is_a_text_is_in_the_default_namespace() -> None:
    topic = Topic[Plain]("plain")
    exchange = Exchange()
    view: View[Any, Plain]
    async with open_view(exchange, SubscribeRequest(topic, namespace=ALL)) as view:
        exchange.wire.give(Event(topic, 1, Plain()), whole(1))
        assert list(await view.wait_current()) == [(topic, "default", "a")]


def of_topic(topic: Topic[Any], payload: Health) -> str:
    return f"{topic}/{payload.key}"


class OfTopic:
    def __call__(self, topic: Topic[Any], payload: Health) -> str:
        return of_topic(topic, payload)

    def method(self, topic: Topic[Any], payload: Health) -> str:
        return of_topic(topic, payload)


@pytest.mark.parametrize("key", [of_topic, lambda t, p: f"{t}/{p.key}", OfTopic(), OfTopic().method])
async def test_a_key_that_takes_two_arguments_is_given_the_topic(key: Any) -> None:
    async with viewed(BOTH, key=key) as (store, view):
        assert values(view) == {"health/web": "a", "health/web2": "a", "health/db": "a", "jobs/web": "c"}
        await view.wait_index(store.commit(("web", None), ("db", "z")))
        assert values(view) == {"health/web2": "a", "health/db": "z", "jobs/web": "c"}


def with_default(payload: Health, suffix: str = "!") -> str:
    return payload.key + suffix


@pytest.mark.parametrize("key", [with_default, lambda *payloads: f"{payloads[0].key}!"])
async def test_a_key_that_can_take_one_argument_is_given_the_payload(key: Any) -> None:
    async with viewed(SubscribeRequest(HEALTH), key=key) as (_, view):
        assert values(view) == {"web!": "a", "web2!": "a", "db!": "a"}


@pytest.mark.parametrize(
    "key", [lambda: 0, lambda a, b, c: 0, lambda *, payload: 0, "key"], ids=(0, 3, "named", "no")
)
async def test_a_key_that_takes_neither_is_refused_at_the_call(key: Any) -> None:
    with pytest.raises(TypeError, match="key is called with a payload, or with a topic and a payload"):
        async with open_view(Exchange(), BOTH, key=key):
            pytest.fail("nobody can call it")
    with pytest.raises(TypeError, match="key is called with a payload"):
        KeyedReducer(key)
    with pytest.raises(TypeError, match="key is called with a payload"):
        ViewPool(Exchange(), key=key)


@pytest.mark.parametrize(
    ("request_", "text"),
    [
        (SubscribeRequest(HEALTH, "web"), "<View of 'health' 'default/default/web', connecting at 0>"),
        (WEBS, "<View of 'health' 'default/default/web*', connecting at 0>"),
        (
            BOTH | SubscribeRequest(HEALTH, "x", namespace=ALL, partition=ALL),
            "<View of 'health' 'default/default/' | 'health' '*/*/x' | 'jobs' 'default/default/', connecting at 0>",
        ),
    ],
    ids=("key", "prefix", "union"),
)
async def test_a_view_says_what_it_is_of(request_: SubscribeRequest[Any], text: str) -> None:
    async with open_view(Exchange(), request_) as view:
        assert repr(view) == text


async def test_what_a_view_logs_names_its_topics(caplog: pytest.LogCaptureFixture) -> None:
    exchange = Exchange(OSError())
    async with open_view(exchange, BOTH | SubscribeRequest(HEALTH, "x", namespace=ALL)):
        await quiet()
    assert [record.getMessage() for record in caplog.records] == [
        "the view of 'health', 'jobs' connects again in 0.00 s: OSError"
    ]


async def test_a_commit_over_two_topics_is_one_change_of_the_state() -> None:
    """D22, D4."""
    async with viewed(BOTH) as (store, view):
        seen: set[tuple[str | None, str | None]] = set()

        def look(state: Any) -> bool:
            seen.add(tuple(state[topic, "default", "web"].value for topic in (HEALTH, JOBS)))
            return bool(state.index >= 30)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(view.wait_for, look)
            for index in range(store.index + 1, 31):
                store.commit_events(
                    [Event(topic, index, Health("web", f"{index}")) for topic in (HEALTH, JOBS)]
                )
                await anyio.lowlevel.checkpoint()
        assert ("30", "30") in seen
        assert all(one == other for one, other in seen if (one, other) != ("a", "c"))


async def test_a_union_goes_on_where_it_was_when_its_connection_is_lost() -> None:
    exchange = Exchange()
    view: View[Any, Health]
    async with open_view(exchange, BOTH, is_delete=is_gone) as view:
        exchange.wire.give(put(1, "web"), whole(2))
        await view.wait_current()
        exchange.horizon = 2
        exchange.wire.end(OSError(), resume=2)
        await quiet()
        assert [each.index for each in exchange.requests] == [0, 2]
        assert {each.interests for each in exchange.requests} == {BOTH.interests}
        exchange.wire.give(Event(JOBS, 3, Health("web", "b")))
        assert values(await view.wait_index(3)) == {
            (HEALTH, "default", "web"): "ok",
            (JOBS, "default", "web"): "b",
        }


async def test_equal_unions_share_a_view_and_each_request_has_its_own_keys() -> None:
    async with opened() as (store, publisher), ViewPool(publisher.subscribe, is_delete=is_gone) as pool:
        store.commit(("web", "a"))
        other = SubscribeRequest(JOBS) | SubscribeRequest(HEALTH, "web") | SubscribeRequest(HEALTH)
        async with pool.view(BOTH) as one, pool.view(other) as two, pool.view(WEBS) as three:
            assert one is two
            assert list(await one.wait_current()) == [(HEALTH, "default", "web")]
            assert list(await three.wait_current()) == ["web"]
            assert len(pool) == 2


async def test_all_of_a_source_that_is_not_wide_ends_the_view() -> None:
    store = Catalogue()
    async with open_publisher({HEALTH: store.snapshot}) as publisher:
        with pytest.raises(ViewEnded) as ended:
            async with open_view(publisher.subscribe, EVERYWHERE):
                await anyio.sleep_forever()
    assert isinstance(ended.value.__cause__, ValueError)
    assert "not wide" in str(ended.value.__cause__)


async def test_a_forced_end_of_a_union_is_mended() -> None:
    async with viewed(BOTH) as (store, view):
        assert store.publisher is not None
        store.publisher.refresh(JOBS)
        store.commit(("new", "a"), topic=JOBS)
        state = await view.wait_for(lambda state: (JOBS, "default", "new") in state)
        assert len(state) == 5
        assert view.statistics().connections == 2


async def test_a_reducer_is_given_the_events_of_all_topics() -> None:
    class CountByTopic:
        def __init__(self) -> None:
            self.counts: dict[str, int] = {}

        def reset(self) -> None:
            self.counts = {}

        def apply(self, events: Any, /) -> dict[str, int]:
            self.counts = dict(self.counts)
            for event in events:
                for single in event.events:
                    self.counts[single.topic.name] = self.counts.get(single.topic.name, 0) + 1
            return self.counts

    async with opened() as (store, publisher):
        store.commit(("a", "a"), ("b", "b"))
        store.commit(("a", "a"), topic=JOBS)
        view: View[str, int]
        async with open_view(publisher.subscribe, BOTH, reducer=CountByTopic()) as view:
            assert dict(await view.wait_current()) == {"health": 2, "jobs": 1}


def test_a_request_that_is_none_is_refused_before_its_key_is_looked_for() -> None:
    opening: Callable[..., Any] = open_view
    with pytest.raises(TypeError, match="a request is a SubscribeRequest"):
        anyio.run(opening(Exchange(), cast(Any, "health")).__aenter__)
