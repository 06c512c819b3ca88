"""Arguments that make no sense are refused at the call, by an error that says so, and change nothing."""

from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any

import anyio
import pytest
from catalogue import HEALTH, JOBS, Catalogue, Health, event, kinds, ready

from trio_stream import (
    Event,
    EventPublisher,
    InvalidCommitError,
    SnapshotAppender,
    SnapshotFailed,
    SubscribeRequest,
    Subscription,
    SubscriptionForceClosed,
    Topic,
    close_subscription_event,
    open_publisher,
)
from trio_stream.testing import Model, cancel_at_every_checkpoint, check_trace, collect, seeded_schedule

pytestmark = pytest.mark.anyio

NEW = Topic[Health]("new")


def publisher_at_5() -> EventPublisher:
    return EventPublisher({HEALTH: Catalogue().snapshot, JOBS: Catalogue().snapshot}, index=5, epoch="e")


def live(publisher: EventPublisher, token: str = "t") -> Subscription[Health]:
    return publisher.subscribe(SubscribeRequest(HEALTH, token=token, index=5))


NO_INTEGERS: list[Any] = [1.5, 1.0, True, False, "1", b"1", [1], float("nan")]


@pytest.mark.parametrize("most", NO_INTEGERS, ids=repr)
async def test_how_many_events_a_batch_may_have_is_a_whole_number(most: Any) -> None:
    """U22, D18: and what was ready stays ready."""
    publisher = publisher_at_5()
    subscription = live(publisher)
    publisher.publish([event(6, "web")])
    with pytest.raises(TypeError, match="max_events is an integer"):
        await subscription.receive_batch(most)
    assert kinds(await subscription.receive_batch(None)) == ["6:web=ok"]


@pytest.mark.parametrize("index", [*NO_INTEGERS, None, -1], ids=repr)
async def test_the_index_that_is_waited_for_is_one(index: Any) -> None:
    """U22, D18: whatever was published, before it waits for anything, and also where the subscription has ended."""
    publisher = publisher_at_5()
    subscription = live(publisher)
    kind: type[Exception] = ValueError if index == -1 else TypeError
    steps = 0

    async def call() -> None:
        nonlocal steps
        with pytest.raises(kind, match="an index is"):
            await subscription.wait_published(index)

    steps = await cancel_at_every_checkpoint(call)
    assert steps == 0
    subscription.close()
    await call()


@pytest.mark.parametrize(
    ("ttl", "kind"),
    [
        (True, TypeError),
        (False, TypeError),
        ("10", TypeError),
        (None, TypeError),
        (1j, TypeError),
        ([10], TypeError),
        (float("nan"), ValueError),
        (-1, ValueError),
        (10**400, ValueError),
    ],
    ids=lambda value: str(value)[:10],
)
async def test_a_time_to_live_is_a_number_of_seconds(ttl: Any, kind: type[Exception]) -> None:
    """D18: by a message that names the option."""
    with pytest.raises(kind, match="snapshot_cache_ttl is"):
        EventPublisher(snapshot_cache_ttl=ttl)
    with pytest.raises(kind, match="snapshot_cache_ttl is"):
        async with open_publisher(snapshot_cache_ttl=ttl):
            pytest.fail("it runs")


@pytest.mark.parametrize("handlers", [None, [], [HEALTH], HEALTH, "health", 7, print], ids=repr)
async def test_handlers_are_a_mapping(handlers: Any) -> None:
    """D18."""
    with pytest.raises(TypeError, match="handlers is a mapping"):
        EventPublisher(handlers)
    with pytest.raises(TypeError, match="handlers is a mapping"):
        async with open_publisher(handlers):
            pytest.fail("it runs")


async def yields(request: SubscribeRequest[Health], snapshot: SnapshotAppender[Health]) -> AsyncIterator[int]:
    yield 1


def yields_too(request: SubscribeRequest[Health], snapshot: SnapshotAppender[Health]) -> Iterator[int]:
    yield 1


class Yields:
    """Is called as a handler is."""

    async def __call__(self, *_: object) -> AsyncIterator[int]:
        yield 1

    async def snapshot(self, *_: object) -> AsyncIterator[int]:
        yield 1


NO_HANDLERS: list[Any] = [
    yields,
    yields_too,
    Yields(),
    Yields().snapshot,
    partial(yields),
    None,
    1,
    "text",
]


@pytest.mark.parametrize("handler", NO_HANDLERS)
async def test_what_is_certainly_no_async_function_is_no_handler(handler: Any) -> None:
    """U22, D18."""
    publisher = publisher_at_5()
    with pytest.raises(TypeError, match="the handler of 'new'"):
        publisher.register_handler(NEW, handler)
    with pytest.raises(TypeError, match="the handler of 'new'"):
        EventPublisher({HEALTH: Catalogue().snapshot, NEW: handler})
    publisher.register_handler(NEW, Catalogue().snapshot)


class Answers:
    """Is called as a handler is."""

    async def __call__(self, request: SubscribeRequest[Health], snapshot: SnapshotAppender[Health]) -> int:
        return 7


HANDLERS: list[Any] = [
    Answers(),
    Answers().__call__,
    partial(Answers()),
    lambda *arguments: Answers()(*arguments),  # noqa: PLW0108 - a plain function that gives something to await
]


@pytest.mark.parametrize("handler", HANDLERS, ids=["object", "method", "partial", "lambda"])
async def test_whatever_gives_something_to_await_is_a_handler(handler: Any) -> None:
    async with (
        open_publisher({NEW: handler}) as publisher,
        publisher.subscribe(SubscribeRequest(NEW)) as subscription,
    ):
        assert kinds([await subscription.receive()]) == ["eos@7"]


async def test_a_handler_that_turns_out_not_to_be_async_is_named() -> None:
    """D16: nobody can know before it is called."""

    def handler(request: SubscribeRequest[Health], snapshot: SnapshotAppender[Health]) -> int:
        return 7

    wrong: Any = handler
    async with (
        open_publisher({NEW: wrong, HEALTH: Catalogue().snapshot}) as publisher,
        publisher.subscribe(SubscribeRequest(NEW)) as subscription,
    ):
        with pytest.raises(SnapshotFailed) as raised:
            await subscription.receive()
        assert isinstance(raised.value.__cause__, TypeError)
        assert str(raised.value.__cause__) == "the handler of 'new' is not async: it returned int"
        async with publisher.subscribe(SubscribeRequest(HEALTH)) as other:
            assert kinds([await other.receive()]) == ["eos@0"]


async def events() -> AsyncIterator[Event[Health]]:
    yield event(6, "web")


NOT_SEVERAL: list[Any] = [
    None,
    "abc",
    "",
    b"bytes",
    bytearray(b"abc"),
    7,
    event(6, "web"),
    events(),
    object(),
]


@pytest.mark.parametrize("commit", NOT_SEVERAL)
async def test_what_is_not_several_events_is_not_published(commit: Any) -> None:
    """U22, D18: text neither, which is letters, and an empty one no commit of nothing."""
    async with open_publisher({HEALTH: Catalogue().snapshot}, index=5) as publisher:
        subscription = live(publisher)
        for index in (None, 6):
            with pytest.raises(TypeError, match=r"publish\(\) takes an iterable of events, not"):
                publisher.publish(commit, index=index)
            with pytest.raises(TypeError, match=r"publish_from_thread\(\) takes an iterable of events, not"):
                publisher.publish_from_thread(commit, index=index)
            with pytest.raises(TypeError, match=r"publish_from_thread\(\) takes an iterable of events, not"):
                await anyio.to_thread.run_sync(partial(publisher.publish_from_thread, commit, index=index))
        assert publisher.index == 5
        assert ready(subscription) == []


@pytest.mark.parametrize("index", [True, 1.0])
async def test_an_index_that_only_equals_one_is_none(index: Any) -> None:
    """D18: beside events of that index, too."""
    publisher = EventPublisher({HEALTH: Catalogue().snapshot})
    for commit in ([], [event(1, "web")], [close_subscription_event(["t"])]):
        with pytest.raises(TypeError, match="an index is an integer"):
            publisher.publish(commit, index=index)
    assert publisher.index == 0


@pytest.mark.parametrize("topic", ["health", None, 7, ["health"], Topic], ids=str)
async def test_what_is_no_topic_has_no_events_and_nothing_to_refresh(topic: Any) -> None:
    """D18: a name is not taken for its topic, and what cannot be hashed is refused in the same way."""
    publisher = publisher_at_5()
    subscription = live(publisher)
    with pytest.raises(InvalidCommitError, match="a topic is a Topic"):
        publisher.publish([event(6, "web"), Event(topic, 6, Health("web"))])
    with pytest.raises(TypeError, match="a topic is a Topic"):
        publisher.register_handler(topic, Catalogue().snapshot)
    if topic is not None:
        with pytest.raises(TypeError, match="a topic is a Topic"):
            publisher.refresh(topic)
    assert (publisher.index, ready(subscription), publisher.statistics().subscriptions) == (5, [], 1)


NOT_TOKENS: list[Any] = ["abc", "", b"abc", None, 7, [7], ["t", None], [["t"]], [b"t"], ("t", True), {1: "t"}]


@pytest.mark.parametrize("tokens", NOT_TOKENS, ids=repr)
async def test_what_are_no_tokens_close_nobody(tokens: Any) -> None:
    """U22, D18."""
    publisher = publisher_at_5()
    subscription = live(publisher)
    for call in (publisher.close_subscriptions, close_subscription_event):
        with pytest.raises(TypeError, match="token"):
            call(tokens)
    assert ready(subscription) == []
    assert publisher.close_subscriptions(iter(["t"])) == 1


async def test_an_iterable_of_tokens_that_fails_closes_nobody() -> None:
    """D18."""
    publisher = publisher_at_5()
    subscription = live(publisher)

    def half() -> Iterator[str]:
        yield "t"
        raise OSError("half way")

    for call in (publisher.close_subscriptions, close_subscription_event):
        with pytest.raises(OSError):
            call(half())
    assert ready(subscription) == []


def publishes(publisher: EventPublisher) -> Iterable[Event[Any]]:
    yield event(6, "web", "outer")
    publisher.publish([event(6, "web", "inner")])


def refreshes(publisher: EventPublisher) -> Iterable[Event[Any]]:
    yield event(6, "web", "outer")
    publisher.refresh(index=6)


@pytest.mark.parametrize("iterable", [publishes, refreshes])
async def test_a_commit_that_is_overtaken_while_it_is_iterated_is_refused(
    iterable: Callable[[EventPublisher], Iterable[Event[Any]]],
) -> None:
    """D2, D18: what the iterable itself has done holds, and nothing is published on top of it."""
    publisher = publisher_at_5()
    subscription = live(publisher)
    with pytest.raises(InvalidCommitError, match="6 is not after 6"):
        publisher.publish(iterable(publisher))
    assert publisher.index == 6
    if iterable is publishes:
        assert kinds(ready(subscription)) == ["6:web=inner"]


async def test_what_an_iterable_publishes_comes_before_the_commit_it_is_of() -> None:
    """D2."""
    publisher = publisher_at_5()
    subscription = live(publisher)

    def commit() -> Iterator[Event[Any]]:
        yield event(7, "web", "outer")
        publisher.publish([event(6, "web", "inner")])

    publisher.publish(commit())
    assert kinds(ready(subscription)) == ["6:web=inner", "7:web=outer"]


async def test_an_iterable_may_close_subscriptions_and_subscribe() -> None:
    """D3, D9: who is there when the commit is published gets it."""
    publisher = publisher_at_5()
    closed = live(publisher)
    opened: list[Subscription[Health]] = []

    def commit() -> Iterator[Event[Any]]:
        yield event(6, "web")
        publisher.close_subscriptions(["t"])
        opened.append(live(publisher, "other"))

    publisher.publish(commit())
    with pytest.raises(SubscriptionForceClosed):
        closed.receive_nowait()
    assert kinds(ready(opened[0])) == ["6:web=ok"]


async def test_a_subject_that_publishes_does_not_mix_two_commits() -> None:
    """D2, D4, D18: the payload's own code runs before anything is decided."""
    publisher = publisher_at_5()
    subscription = live(publisher)

    class Publishes:
        @property
        def subject(self) -> str:
            publisher.publish([event(publisher.index + 1, "web")])
            return "web"

    with pytest.raises(InvalidCommitError, match="6 is not after 6"):
        publisher.publish([event(6, "db"), Event(HEALTH, 6, Publishes())])
    assert kinds(ready(subscription)) == ["6:web=ok"]


async def test_a_mapping_of_handlers_that_fails_makes_no_publisher() -> None:
    class Fails(Mapping[Any, Any]):
        def __getitem__(self, key: object) -> Any:
            raise OSError("no handlers")

        def __iter__(self) -> Iterator[Any]:
            return iter([HEALTH])

        def __len__(self) -> int:
            return 1

    with pytest.raises(OSError):
        EventPublisher(Fails())


@pytest.mark.parametrize("upto", [*NO_INTEGERS, -1], ids=repr)
async def test_the_index_up_to_which_the_test_kit_looks_is_one(upto: Any) -> None:
    """D18: and nothing is received that would be lost."""
    publisher = publisher_at_5()
    subscription = live(publisher)
    publisher.publish([event(6, "web")])
    kind: type[Exception] = ValueError if upto == -1 else TypeError
    with pytest.raises(kind, match="upto is"):
        await collect(subscription, upto=upto)
    assert kinds(ready(subscription)) == ["6:web=ok"]
    with pytest.raises(kind, match="upto is"):
        check_trace([], Model(request=subscription.request, commits=[], apply=print), upto=upto)


@pytest.mark.parametrize("seed", [None, 1.5, "7", True, b"7"], ids=repr)
async def test_a_seed_is_a_whole_number(seed: Any) -> None:
    """D18: None would be a new order each time."""
    with pytest.raises(TypeError, match="a seed is an integer"):
        seeded_schedule(seed)


async def test_what_is_cancelled_at_every_checkpoint_is_async() -> None:
    wrong: Any = lambda: 7  # noqa: E731
    with pytest.raises(TypeError, match="async_fn is not async: it returned int"):
        await cancel_at_every_checkpoint(wrong)


def test_a_schedule_is_for_one_of_two_back_ends() -> None:
    """D18: any other name is not asyncio."""

    async def main() -> None:
        pytest.fail("it runs")

    wrong: Any = "curio"
    with pytest.raises(ValueError, match="backend is 'trio' or 'asyncio'"):
        seeded_schedule(7).run(main, backend=wrong)
