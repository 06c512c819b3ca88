"""Filters: what `where` lets through comes, what it does not is passed over, and nobody else notices."""

from typing import Any

import anyio
import pytest
from catalogue import HEALTH, JOBS, Health, event, kinds, ready, until_live
from replaced import change, changes, replacing
from scenes import quiet, settled
from unions import BOTH, fold, rows_at, shown

from trio_stream import (
    Cursor,
    Event,
    EventPublisher,
    NoOpEventPublisher,
    PublisherDisabledError,
    SubscribeRequest,
    Subscription,
    SubscriptionLagged,
    SubscriptionState,
    WouldBlock,
    close_subscription_event,
)

pytestmark = pytest.mark.anyio

EVERY = SubscribeRequest(HEALTH)
MOST_CHECKED = 4_096  # events that one call looks at, as D15 says


def is_up(payload: Health) -> bool:
    return payload.value == "up"


def live(
    publisher: EventPublisher, request: SubscribeRequest[Health] = EVERY, **options: Any
) -> Subscription[Health]:
    """A reader that has everything up to now, without a snapshot; the publisher's index is above 0."""
    return publisher.subscribe(request.after(publisher.cursor), **options)


async def test_what_the_filter_is_true_for_comes_as_it_is() -> None:
    """D10: the shared event itself, also a batch of which nothing is taken."""
    async with replacing(index=1) as (_, publisher):
        reader, plain = live(publisher, where=is_up), live(publisher)
        publisher.publish([event(2, "a", "up")])
        publisher.publish([event(3, "a", "down")])
        publisher.publish([event(4, "a", "up"), event(4, "b", "up")])
        publisher.publish([event(5, "a", "down"), event(5, "b", "up")])
        received, everything = ready(reader), ready(plain)
        assert kinds(received) == ["2:a=up", "4:a=up+b=up", "5:b=up"]
        assert received[0] is everything[0]
        assert received[1] is everything[2]


@pytest.mark.parametrize(
    ("answer", "passes"), [(1, True), ("x", True), (0, False), ("", False), (None, False)]
)
async def test_an_answer_that_is_no_bool_counts_as_what_it_is_worth(answer: Any, passes: bool) -> None:
    async with replacing(index=1) as (_, publisher):
        reader = live(publisher, where=lambda _: answer)
        publisher.publish([event(2, "a")])
        assert len(ready(reader)) == passes


class Promise:
    """What an async function returns, without the warning that nobody awaits it."""

    def __await__(self) -> Any:
        raise AssertionError


@pytest.mark.parametrize("authorizer", [None, frozenset({"a"})])
@pytest.mark.parametrize("several", [False, True])
async def test_an_answer_that_would_have_to_be_awaited_is_an_error_and_not_a_yes(
    authorizer: Any, several: bool
) -> None:
    """D19: an awaitable is true, whatever comes of it."""
    async with replacing(index=1) as (_, publisher):
        answers: list[Any] = [Promise()]
        reader = live(publisher, authorizer=authorizer, where=lambda _: answers[0])
        publisher.publish([event(2, "a")] * (1 + several))
        for _ in range(2):
            with pytest.raises(TypeError, match="Health"):
                reader.receive_nowait()
        assert reader.index == reader.horizon == 1
        answers[0] = True
        assert len(ready(reader)) == 1


@pytest.mark.parametrize("where", [True, "up", 7, ["up"]])
async def test_what_is_no_function_is_refused_and_nothing_is_subscribed(where: Any) -> None:
    """D18."""
    async with replacing(index=1) as (_, publisher):
        with pytest.raises(TypeError, match="where"):
            publisher.subscribe(EVERY, where=where)
        assert publisher.statistics().subscriptions == 0


async def test_a_publisher_that_does_nothing_takes_a_filter_too() -> None:
    with pytest.raises(PublisherDisabledError):
        NoOpEventPublisher().subscribe(EVERY, where=is_up)


async def test_a_filter_is_given_payloads_and_nothing_else() -> None:
    """D5: no framing, no batch, no close event."""
    given: list[object] = []

    def where(payload: Health) -> bool:
        given.append(payload)
        return False

    async with replacing() as (store, publisher):
        store.commit(("a", "up"))
        reader = publisher.subscribe(EVERY, where=where)
        assert kinds(await until_live(reader)) == ["eos@1"]
        publisher.publish([close_subscription_event(["t"])])
        store.commit(("a", "down"), ("b", "up"))
        assert ready(reader) == []
        publisher.close_subscriptions(["u"])
        stale = publisher.subscribe(SubscribeRequest(HEALTH, index=1, epoch="another"), where=where)
        assert await settled(stale) == ["marker", "eos@1"]
        assert given
        assert {type(payload) for payload in given} == {Health}


async def test_a_snapshot_is_filtered_and_its_end_always_comes() -> None:
    """D1, D5, D14: each reader of it by its own filter; it is made once."""
    async with replacing(snapshot_cache_ttl=3600) as (store, publisher):
        store.commit(("a", "up"))
        store.commit(("b", "down"))
        store.commit(("c", "up"))
        for where, due in [
            (is_up, ["1:a=up", "3:c=up", "eos@3"]),
            (lambda payload: payload.key == "b", ["2:b=down", "eos@3"]),
            (lambda _: False, ["eos@3"]),
            (None, ["1:a=up", "2:b=down", "3:c=up", "eos@3"]),
        ]:
            assert kinds(await until_live(publisher.subscribe(EVERY, where=where))) == due
        assert store.runs == 1


async def test_what_is_filtered_moves_the_horizon_and_the_cursor() -> None:
    """D7: so that a reader to whom nothing comes does not grow stale."""
    async with replacing(index=1, history=4, epoch="e", mark="m1") as (_, publisher):
        reader = live(publisher, where=is_up)
        for index in range(2, 20):
            publisher.publish([event(index, "a", "down")], mark=f"m{index}")
            assert reader.horizon == index
            assert reader.cursor == Cursor(index, "e", f"m{index}")
            assert reader.resume_request() == EVERY.after(reader.cursor)
        assert reader.statistics().lag == 0
        assert (reader.statistics().delivered, reader.statistics().hidden) == (0, 18)
        with pytest.raises(WouldBlock):
            reader.receive_nowait()
        assert reader.index == 19


async def test_the_horizon_stands_before_what_passes() -> None:
    """D7: of a commit in which anything passes, also as a withdrawal."""
    async with replacing(index=1) as (_, publisher):
        reader = live(publisher, where=is_up)
        publisher.publish([event(2, "a", "down")])
        publisher.publish(changes((HEALTH, "a", "down", "down"), (HEALTH, "b", "up", "down"), index=3))
        publisher.publish([event(4, "a", "down")])
        assert reader.horizon == reader.cursor.index == 2
        assert kinds([reader.receive_nowait()]) == ["3:b=None"]
        assert reader.horizon == 4


@pytest.mark.parametrize("hidden", [1, 255, 256, 257, 700])
@pytest.mark.parametrize("call", ["receive", "receive_batch", "anext"])
async def test_a_waiting_reader_passes_over_whatever_is_filtered(hidden: int, call: str) -> None:
    """D3, D15."""
    async with replacing(index=1) as (_, publisher), anyio.create_task_group() as tasks:
        reader = live(publisher, where=is_up)
        got: list[Event[Health]] = []

        async def read() -> None:
            if call == "receive_batch":
                got.extend(await reader.receive_batch())
            else:
                got.append(await (anext(reader) if call == "anext" else reader.receive()))

        tasks.start_soon(read)
        await quiet()
        for _ in range(hidden):
            publisher.publish([event(publisher.next_index, "a", "down")])
        await quiet()
        assert got == []
        assert reader.horizon == publisher.index
        publisher.publish([event(publisher.next_index, "a", "up")])
        await quiet()
        assert kinds(got) == [f"{publisher.index}:a=up"]


async def test_one_call_looks_at_so_many_filtered_events_and_no_more() -> None:
    """D15: `receive_nowait` may say that nothing is ready although something is, behind these."""
    asked = 0

    def where(payload: Health) -> bool:
        nonlocal asked
        asked += 1
        return is_up(payload)

    async with replacing(index=1, history=20_000) as (_, publisher):
        reader = live(publisher, where=where)
        for _ in range(3 * MOST_CHECKED):
            publisher.publish([event(publisher.next_index, "a", "down")])
        publisher.publish([event(publisher.next_index, "a", "up")])
        with pytest.raises(WouldBlock):
            reader.receive_nowait()
        assert 0 < asked <= MOST_CHECKED
        asked = 0
        assert reader.horizon == 1 + 2 * MOST_CHECKED
        assert asked <= MOST_CHECKED
        assert kinds(await reader.receive_batch()) == [f"{publisher.index}:a=up"]


async def test_to_wait_for_an_index_asks_no_filter_and_receives_nothing() -> None:
    """D19: what is hidden is told by nothing but that its index has passed."""
    asked: list[Health] = []

    def where(payload: Health) -> bool:
        asked.append(payload)
        return False

    async with replacing(index=1) as (_, publisher), anyio.create_task_group() as tasks:
        reader = live(publisher, where=where)
        has_passed = anyio.Event()

        async def wait() -> None:
            await reader.wait_published(3)
            has_passed.set()

        tasks.start_soon(wait)
        await quiet()
        publisher.publish([event(2, "a", "down")])
        await quiet()
        assert not has_passed.is_set()
        publisher.publish([event(3, "a", "down")])
        await has_passed.wait()
        assert asked == []
        assert reader.index == 1
        assert reader.horizon == 3
        assert len(asked) == 2


async def test_a_reader_that_comes_back_with_its_filter_goes_on_where_it_was() -> None:
    """D7, D19: the state that it held is right, whatever was hidden meanwhile."""
    async with replacing(index=1) as (store, publisher):
        held: dict[Any, str] = {}
        request = EVERY
        reader = publisher.subscribe(request, where=is_up)
        fold(held, await until_live(reader))
        values = ["up", "down", "up", "up", None, "down", "down", "up", None, "up", "down"]
        for number, value in enumerate(values):
            store.commit((f"k{number % 3}", value), (f"k{(number + 1) % 3}", "down" if number % 2 else "up"))
            if number % 2:
                request = reader.resume_request()
                reader.close()
                reader = publisher.subscribe(request, where=is_up)
                assert reader.state is SubscriptionState.LIVE
            fold(held, await reader.receive_until_current())
            truth = rows_at(store, store.index, EVERY)
            assert held == {row: value for row, value in truth.items() if value == "up"}
        # A request has no filter.
        plain = publisher.subscribe(reader.resume_request())
        store.commit(("k", "down"))
        assert kinds(ready(plain)) == [f"{store.index}:k=down"]


async def test_a_state_is_read_at_once_as_far_as_it_passes() -> None:
    async with replacing() as (store, publisher):
        store.commit(("a", "up"), ("b", "down"))
        reader = publisher.subscribe(EVERY, where=is_up)
        await quiet()
        store.commit(("a", "down"))
        store.commit(("b", "up"))
        assert kinds(await reader.receive_until_current()) == ["1:a=up", "eos@1", "2:a=None", "3:b=up"]
        store.commit(("c", "down"))
        assert await reader.receive_until_current() == []
        assert reader.horizon == 4


async def test_a_filter_of_a_union_is_asked_about_all_of_its_topics() -> None:
    """D22."""
    async with replacing(index=1) as (_, publisher):
        reader = live(publisher, BOTH, where=is_up)
        publisher.publish([event(2, "a", "down"), event(2, "a", "up", topic=JOBS)])
        publisher.publish(changes((JOBS, "a", "up", "down"), (HEALTH, "a", "down", "up"), index=3))
        publisher.publish([event(4, "a", "down", topic=JOBS)])
        assert shown(ready(reader)) == ["2:jobs/a=up", "3:jobs/a=None+health/a=up"]
        assert reader.horizon == 4


async def test_what_is_filtered_counts_for_falling_off_the_history() -> None:
    """D11: a reader that stalls is told, whatever it would have got."""
    async with replacing(index=1, history=2) as (store, publisher):
        closed, reset = live(publisher, where=is_up), live(publisher, where=is_up, on_lag="reset")
        for value in ("up", "down", "down", "down"):
            store.commit(("a", value))
        with pytest.raises(SubscriptionLagged) as lagged:
            await closed.receive()
        assert lagged.value.missed == 2
        with pytest.raises(WouldBlock):
            reset.receive_nowait()
        store.commit(("b", "up"))
        assert await settled(reset) == ["marker", "6:b=up", "eos@6"]


async def test_a_filter_is_kept_for_the_whole_subscription() -> None:
    """D21: behind a marker too, and inside the snapshot that follows."""
    async with replacing(index=1, history=1) as (store, publisher):
        reader = live(publisher, where=is_up, on_lag="reset")
        for value in ("up", "down", "up"):
            store.commit(("a", value), ("b", "down"))
        with pytest.raises(WouldBlock):
            reader.receive_nowait()
        assert await settled(reader) == ["marker", "4:a=up", "eos@4"]
        store.commit(("a", "down"), ("b", "up"))
        assert kinds(ready(reader)) == ["5:a=None+b=up"]


async def test_late_events_are_not_asked_about() -> None:
    """D2: the snapshot had seen them; to ask would say that there was something."""
    asked: list[str | None] = []

    def where(payload: Health) -> bool:
        asked.append(payload.value)
        return True

    async with replacing() as (store, publisher):
        store.publisher = None
        events = [change(index, None if index == 1 else f"{index - 1}", f"{index}") for index in (1, 2)]
        for each in events:
            store.commit_events([each])
        reader = publisher.subscribe(EVERY, where=where)
        assert kinds(await until_live(reader)) == ["2:web=2", "eos@2"]
        asked.clear()
        for each in (*events, change(3, "2", "3")):
            publisher.publish([each])
        assert kinds(ready(reader)) == ["3:web=3"]
        assert asked == ["3"]


async def test_filters_of_other_readers_change_nothing_for_one() -> None:
    """D10: nor do errors of theirs."""
    async with replacing(index=1) as (_, publisher):

        def broken(payload: Health) -> bool:
            raise ZeroDivisionError

        readers = [live(publisher, where=where) for where in (broken, lambda _: False, None, broken)]
        for index in range(2, 6):
            publisher.publish([event(index, "a", "up")])
        assert len(ready(readers[2])) == 4
        assert ready(readers[1]) == []
        for each in (readers[0], readers[3]):
            with pytest.raises(ZeroDivisionError):
                await each.receive()
            assert each.index == each.horizon == 1
            assert each.statistics().lag == 4
            assert [info.lag for info in publisher.subscriptions()].count(4) == 2


async def test_a_typed_filter_is_one_of_the_payload() -> None:
    """For type checkers: a request of `Health` takes a function of `Health`."""
    async with replacing(index=1) as (_, publisher):
        reader: Subscription[Health] = publisher.subscribe(
            EVERY.after(publisher.cursor), where=lambda payload: payload.value == "up"
        )
        publisher.publish([event(2, "a", "up")])
        received: Event[Health] = reader.receive_nowait()
        assert received.index == 2


@pytest.mark.parametrize("answer", [1, "x", 0, "", None])
async def test_a_filter_is_asked_once_for_each_payload_whatever_it_answers(answer: Any) -> None:
    asked: list[str | None] = []

    def note(payload: Health) -> Any:
        asked.append(payload.value)
        return answer

    async with replacing(index=1) as (_, publisher):
        reader = live(publisher, where=note)
        publisher.publish([event(2, "a", "1")])
        publisher.publish([event(3, "a", "2"), event(3, "b", "3")])
        ready(reader)
        assert asked == ["1", "2", "3"]


@pytest.mark.parametrize("how", ["loop", "receive"])
async def test_a_filter_that_raises_what_ends_a_loop_ends_none(how: str) -> None:
    """D6: a loop that stops in silence looks like the end of the subject."""

    def stop(payload: Health) -> bool:
        raise StopAsyncIteration

    async with replacing(index=1) as (_, publisher):
        reader = live(publisher, where=stop)
        publisher.publish([event(2, "a", "1")])
        for _ in range(2):
            with pytest.raises(RuntimeError, match="StopAsyncIteration"):
                if how == "loop":
                    async for _ in reader:
                        pass
                else:
                    await reader.receive()
        assert reader.state is SubscriptionState.LIVE
