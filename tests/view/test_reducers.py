"""What folds: the keyed one, others, and those that fail."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, cast

import pytest
from catalogue import HEALTH, Health, until_live
from scenes import ALL, opened, quiet
from view.wires import MARKER, Exchange, is_gone, put, values, viewing, whole

from trio_stream import Event, PayloadEvents, SnapshotAppender
from trio_stream.view import GONE, Change, KeyedReducer, Status, Table, View, ViewEnded, open_view

pytestmark = pytest.mark.anyio


class CountByValue:
    """How many services have each value."""

    def __init__(self) -> None:
        self.services: dict[str, str] = {}
        self.calls: list[int] = []

    def reset(self) -> None:
        self.services.clear()

    def apply(self, events: Sequence[Event[Health]], /) -> Mapping[str, int]:
        self.calls.append(len(events))
        for event in events:
            for health in event.payloads:
                if health.value is None:
                    self.services.pop(health.key, None)
                else:
                    self.services[health.key] = health.value
        return MappingProxyType(Counter(self.services.values()))


async def test_another_fold_may_show_something_else_than_payloads() -> None:
    async with opened() as (store, publisher):
        store.commit(("web", "up"), ("db", "up"), ("api", "down"))
        view: View[str, int]
        async with open_view(publisher.subscribe, ALL, reducer=CountByValue()) as view:
            assert dict(await view.wait_current()) == {"up": 2, "down": 1}
            async with view.changes() as changes:
                store.commit(("web", "down"))
                store.commit(("x", "x"))
                found = {(await anext(changes)) for _ in range(3)}
            assert found == {Change("up", 2, 1), Change("down", 1, 2), Change("x", None, 1)}


async def test_a_reducer_is_called_once_without_events_when_a_snapshot_is_whole() -> None:
    exchange = Exchange()
    reducer = CountByValue()
    async with open_view(exchange, ALL, reducer=reducer) as view:
        exchange.wire.give(
            put(1, "web"), put(2, "db"), whole(3), put(4, "api"), MARKER, put(5, "web"), whole(5)
        )
        await view.wait_for(lambda state: state.index == 5)
        assert reducer.calls == [2, 0, 1, 1, 0]
        assert dict(view) == {"ok": 1}


async def test_commits_are_folded_in_chunks_of_about_as_many_events_however_large_they_are() -> None:
    """D15: also after small ones, and where a snapshot comes in large groups."""

    class Counting(KeyedReducer[Health, str]):
        most = 0

        def apply(self, events: Sequence[Event[Health]], /) -> Mapping[str, Health]:
            self.most = max(self.most, sum(len(event.events) for event in events))
            return super().apply(events)

    async def snapshot(_: object, appender: SnapshotAppender[Health]) -> int:
        for begin in range(0, 50_000, 100):
            await appender.append([put(1, f"{begin + n}") for n in range(100)])
        return 1

    reducer = Counting(is_delete=is_gone)
    async with opened(snapshot, index=1) as (store, publisher):
        async with open_view(publisher.subscribe, ALL, reducer=reducer) as view:
            await view.wait_current()
            assert len(view) == 50_000
            for size in (1, 3, 10, 50):
                for _ in range(300):
                    store.commit(*((f"{n}", f"{store.index}") for n in range(size)))
                    await quiet() if size == 1 and store.index < 10 else None
                await view.wait_index(store.index)
    assert reducer.most < 5000


async def test_states_of_another_fold_are_kept_only_as_far_as_they_are_small() -> None:
    """D11: each may be a copy of everything."""
    exchange = Exchange()

    class Copying(KeyedReducer[Health, str]):
        def apply(self, events: Sequence[Event[Health]], /) -> Mapping[str, Health]:
            return dict(super().apply(events))

    async with open_view(exchange, ALL, reducer=Copying(is_delete=is_gone)) as view:
        exchange.wire.give(*(put(1, f"{n}") for n in range(300)), whole(1))
        await view.wait_current()
        for index in range(2, 12):
            exchange.wire.give(put(index, "0"))
            await quiet()
        assert [view.state_at(index) is not None for index in range(1, 12)] == [False] * 7 + [True] * 4


class Wrong(Exception):
    pass


def raising(payload: Health) -> Any:
    if payload.key == "bad":
        raise Wrong("no key")
    return payload.key


@pytest.mark.parametrize("live", [False, True])
@pytest.mark.parametrize(
    ("functions", "error"),
    [
        ({"key": raising}, Wrong),
        ({"is_delete": lambda payload: raising(payload) is None}, Wrong),
        ({"key": lambda payload: [payload.key] if payload.key == "bad" else payload.key}, TypeError),
    ],
)
async def test_a_function_that_raises_ends_the_view_and_the_event_is_named(
    functions: Any, error: type[Exception], live: bool
) -> None:
    """Unhashable keys are refused in the same way; what was shown stays whole."""
    exchange = Exchange()
    async with open_view(exchange, ALL, raise_on_end=False, **({"is_delete": is_gone} | functions)) as view:
        if live:
            exchange.wire.give(put(1, "good"), whole(1))
            await view.wait_current()
        singles = [put(2, "good", "new"), put(2, "bad", "x")]
        exchange.wire.give(Event(HEALTH, 2, PayloadEvents(singles)))
        with pytest.raises(ViewEnded) as caught:
            await view.wait_index(2)
        cause = caught.value.__cause__
        assert isinstance(cause, error)
        assert cause.__notes__ == [f"while the view folded {singles[1]!r}"]
        assert view.status.reason is cause
        assert values(view) == ({"good": "ok"} if live else {})


@pytest.mark.parametrize("result", [None, [("web", 1)], 5])
@pytest.mark.parametrize("at", ["snapshot", "end", "live"])
async def test_a_reducer_that_returns_no_mapping_ends_the_view(result: object, at: str) -> None:
    class Odd(KeyedReducer[Health, str]):
        calls = 0

        def apply(self, events: Sequence[Event[Health]], /) -> Mapping[str, Health]:
            Odd.calls += 1
            mapping = super().apply(events)
            wrong = Odd.calls == ["snapshot", "end", "live"].index(at) + 1
            return cast(Any, result) if wrong else mapping

    exchange = Exchange()
    async with open_view(exchange, ALL, reducer=Odd(is_delete=is_gone), raise_on_end=False) as view:
        exchange.wire.give(put(1, "web"), whole(1), put(2, "db"))
        with pytest.raises(ViewEnded) as caught:
            await view.wait_index(2)
        assert isinstance(caught.value.__cause__, TypeError)
        place = {"snapshot": "index=1", "end": "end of a snapshot", "live": "index=2"}[at]
        assert place in str(caught.value.__cause__)
        assert repr(result) in str(caught.value.__cause__)


@pytest.mark.parametrize("error", [OSError("mine"), Wrong(), ExceptionGroup("both", [Wrong()])])
@pytest.mark.parametrize("method", ["reset", "apply"])
async def test_whatever_a_reducer_raises_ends_the_view_and_is_no_matter_of_the_connection(
    error: Exception, method: str
) -> None:
    class Failing(KeyedReducer[Health, str]):
        def reset(self) -> None:
            if method == "reset":
                raise error

        def apply(self, events: Sequence[Event[Health]], /) -> Mapping[str, Health]:
            raise error

    exchange = Exchange()
    async with open_view(exchange, ALL, reducer=Failing(), raise_on_end=False) as view:
        exchange.wire.give(put(1, "web"))
        with pytest.raises(ViewEnded) as caught:
            await view.wait_current()
        assert caught.value.__cause__ is error
        assert view.status.status is Status.CLOSED
        assert len(exchange.wires) == 1


async def test_a_reducer_may_change_a_table_more_than_once_in_one_go() -> None:
    """The reader of changes gets all of it, not only what the last change touched."""

    class Twice:
        def __init__(self) -> None:
            self.table: Table[str, int] = Table()

        def reset(self) -> None:
            self.table = Table()

        def apply(self, events: Sequence[Event[Health]], /) -> Mapping[str, int]:
            for event in events:
                for health in event.payloads:
                    self.table = self.table.changed({health.key: event.index if health.value else GONE})
            return self.table

    exchange = Exchange()
    async with open_view(exchange, ALL, reducer=Twice()) as view:
        exchange.wire.give(put(1, "a"), whole(1))
        await view.wait_current()
        async with view.changes() as changes:
            exchange.wire.give(put(2, "b"), put(3, "c"), put(4, "a", None))
            found = {(await anext(changes)) for _ in range(3)}
        assert found == {Change("a", 1, None), Change("b", None, 2), Change("c", None, 3)}


async def test_a_removal_inside_a_snapshot_leaves_nothing() -> None:
    exchange = Exchange()
    async with viewing(exchange) as view:
        exchange.wire.give(put(1, "a"), put(1, "b"), put(2, "a", None), put(2, "c", None), whole(2))
        assert values(await view.wait_current()) == {"b": "ok"}
        assert len(view) == 1


async def test_a_snapshot_that_is_there_as_a_whole_is_folded_in_chunks_too() -> None:
    """D15: also one of large groups."""

    class Counting(KeyedReducer[Health, str]):
        most = 0

        def apply(self, events: Sequence[Event[Health]], /) -> Mapping[str, Health]:
            self.most = max(self.most, sum(len(event.events) for event in events))
            return super().apply(events)

    async def snapshot(_: object, appender: SnapshotAppender[Health]) -> int:
        for begin in range(0, 10_000, 100):
            await appender.append([put(1, f"{begin + n}") for n in range(100)])
        return 1

    reducer = Counting(is_delete=is_gone)
    async with opened(snapshot, index=1) as (_, publisher):
        await until_live(publisher.subscribe(ALL))
        async with open_view(publisher.subscribe, ALL, reducer=reducer) as view:
            assert len(await view.wait_current()) == 10_000
    assert reducer.most < 1000


async def test_commits_larger_than_a_chunk_are_folded_one_by_one() -> None:
    """D15."""
    reducer = CountByValue()
    async with opened() as (store, publisher), open_view(publisher.subscribe, ALL, reducer=reducer) as view:
        await view.wait_current()
        for _ in range(2):
            reducer.calls.clear()
            for number in range(4):
                store.commit(*((f"{key}", f"{number}") for key in range(1000)))
            await view.wait_index(store.index)
    assert reducer.calls == [1, 1, 1, 1]


def test_a_keyed_reducer_asks_the_payload_for_its_key_and_whether_it_is_a_removal() -> None:
    @dataclass(frozen=True)
    class Row:
        key: str
        is_delete: bool = False

    reducer = KeyedReducer[Row, str]()
    reducer.apply([Event(HEALTH, 1, Row("web")), Event(HEALTH, 1, Row("db"))])
    assert dict(reducer.apply(())) == {"web": Row("web"), "db": Row("db")}
    assert dict(reducer.apply([Event(HEALTH, 2, Row("web", is_delete=True))])) == {"db": Row("db")}


async def test_large_commits_that_were_missed_are_folded_one_by_one() -> None:
    """D15: also by the first read of a connection that goes on."""
    exchange = Exchange()
    reducer = CountByValue()
    async with open_view(exchange, ALL, reducer=reducer) as view:
        exchange.wire.give(put(1, "web"), whole(1))
        await view.wait_current()
        exchange.horizon = 1
        exchange.wire.end(OSError("down"), resume=1)
        await quiet()
        reducer.calls.clear()
        exchange.wire.give(
            *(
                Event(HEALTH, index, PayloadEvents([put(index, f"{number}") for number in range(1000)]))
                for index in range(2, 6)
            )
        )
        await view.wait_index(5)
    assert reducer.calls == [1, 1, 1, 1]
