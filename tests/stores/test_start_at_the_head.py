"""D7: a publisher begins at the newest commit, at once; what is older is read from the log for who needs it."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import anyio
import pytest
from stores.engines import Plain, Steps
from stores.houses import HOUSES, House
from stores.readers import after, cursors, until_index, values
from stores.storehouse import ALL_JOBS, JOBS, commit_each, kinds, put, receive, until_live
from stretches import stretches
from typing_extensions import override

from trio_stream import ALL, Cursor, SubscribeRequest, SubscriptionState
from trio_stream.stores import JSON, Commit, Put, Store, open_store_publisher, topic

pytestmark = pytest.mark.anyio

USERS = topic("users")
MANY = 40  # commits, several times what is kept in memory in these tests


class Counted(Plain):
    """Counts the commits that are read of the log."""

    read = 0

    @override
    def changes(self, after: int | Cursor) -> AbstractAsyncContextManager[AsyncIterator[Commit]]:
        return self._changes(after)

    @asynccontextmanager
    async def _changes(self, after: int | Cursor) -> AsyncIterator[AsyncIterator[Commit]]:
        async with self.store.changes(after) as commits:

            async def step() -> Commit:
                commit = await anext(commits)
                self.read += 1
                return commit

            yield Steps(step)


async def fill(store: Store, count: int = MANY) -> None:
    """Commits 1, 2, ... of keys a, b and c in turn, with the number as the value."""
    for number in range(1, count + 1):
        await store.commit([put("abc"[number % 3], number)])


async def test_it_reads_nothing_of_the_log(house: House) -> None:
    async with house.open() as store:
        await fill(store)
        counted = Counted(store)
        async with open_store_publisher(counted, ["jobs"]) as publisher:
            assert publisher.cursor == (await store.head()).cursor
            assert publisher.statistics().topics["jobs"].commits == 0
            assert counted.read == 0
            async with publisher.subscribe(ALL_JOBS) as subscription:
                await until_live(subscription)
            assert counted.read == 0


async def test_its_history_is_the_newest_commits_since_then(house: House) -> None:
    async with house.open() as store, open_store_publisher(store, ["jobs"], history=3) as publisher:
        await fill(store, 5)
        await until_index(publisher, (await store.head()).index)
        assert publisher.statistics().topics["jobs"].commits == 3


@pytest.mark.parametrize("history", [0, 1])
async def test_the_newest_commit_is_kept_in_any_case(house: House, history: int) -> None:
    async with house.open() as store, open_store_publisher(store, ["jobs"], history=history) as publisher:
        await fill(store, 5)
        await until_index(publisher, (await store.head()).index)
        assert publisher.statistics().topics["jobs"].commits == 1


@pytest.mark.parametrize(("history", "error"), [(-1, ValueError), (True, TypeError), (1.5, TypeError)])
async def test_a_history_that_is_none_is_refused(store: Store, history: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="history"):
        async with open_store_publisher(store, ["jobs"], history=history):
            pass


async def test_a_client_resumes_from_far_below_at_another_publisher(house: House) -> None:
    """D3: every commit once, in order; then what is live."""
    async with house.open() as store:
        await fill(store)
        places = await cursors(store)
        async with open_store_publisher(store, ["jobs"], history=4) as publisher:
            for start in (0, 1, 17, MANY - 2):
                async with publisher.subscribe(after(ALL_JOBS, places[start])) as subscription:
                    events = [await receive(subscription) for _ in range(start + 1, MANY)]
                    assert [event.index for event in events] == [each.index for each in places[start + 1 :]]
                    assert values(events) == [*range(start + 2, MANY + 1)]
                    assert subscription.state is SubscriptionState.LIVE
                    assert subscription.cursor == publisher.cursor
            assert publisher.statistics().opened == {"fresh": 0, "resumed": 0, "replayed": 4, "stale": 0}


async def test_a_client_that_is_up_to_date_asks_the_log_for_nothing(house: House) -> None:
    async with house.open() as store:
        await fill(store, 3)
        counted = Counted(store)
        async with open_store_publisher(counted, ["jobs"]) as publisher:
            await commit_each(store, "x", "y")
            await until_index(publisher, (await store.head()).index)
            read, resumed = counted.read, publisher.statistics().opened["resumed"]
            for place in (await cursors(store))[2:]:
                async with publisher.subscribe(after(ALL_JOBS, place)) as subscription:
                    await subscription.receive_until_current()
            assert counted.read == read
            assert publisher.statistics().opened["resumed"] == resumed + 3


async def test_a_client_resumes_after_a_restart_and_goes_on(house: House) -> None:
    async with house.open() as store, open_store_publisher(store, ["jobs"]) as publisher:
        await commit_each(store, "a")
        async with publisher.subscribe(ALL_JOBS) as subscription:
            await until_live(subscription)
            request = subscription.resume_request()
        await commit_each(store, "b")
    async with house.open() as store:
        await commit_each(store, "c")
    async with house.open() as store, open_store_publisher(store, ["jobs"]) as publisher:
        async with publisher.subscribe(request) as subscription:
            texts = [kinds([await receive(subscription)])[0].partition(":")[2] for _ in "bc"]
            assert texts == ["b=b", "c=c"]
            await commit_each(store, "d")
            assert kinds([await receive(subscription)])[0].endswith(":d=d")


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (SubscribeRequest(JOBS, "a"), ["a"]),
        (SubscribeRequest(JOBS, "a", prefix=True), ["a", "ab"]),
        (SubscribeRequest(JOBS), ["a", "ab", "b"]),
        (SubscribeRequest(JOBS, "a", namespace="blue"), ["a/blue"]),
        (SubscribeRequest(USERS, "a"), ["a/users"]),
        (SubscribeRequest(JOBS, "a") | SubscribeRequest(USERS, "a"), ["a", "a/users"]),
        (SubscribeRequest(JOBS) | SubscribeRequest(USERS), ["a", "ab", "b", "a/users", "b/users"]),
        (SubscribeRequest(JOBS, "b") | SubscribeRequest(JOBS, "a", namespace="blue"), ["b", "a/blue"]),
    ],
    ids=str,
)
async def test_whatever_is_asked_for_is_replayed(
    house: House, request_: SubscribeRequest[Any], expected: list[str]
) -> None:
    """D22: unions of all topics of the store, too, in the order of the commits."""
    async with house.open() as store:
        await commit_each(store, "first")
        start = (await store.head()).cursor
        for key, name, namespace in (
            ("a", "jobs", "default"),
            ("other", "others", "default"),
            ("ab", "jobs", "default"),
            ("b", "jobs", "default"),
            ("a", "jobs", "blue"),
            ("a", "users", "default"),
            ("b", "users", "default"),
        ):
            text = key + ("/blue" if namespace == "blue" else "") + ("/users" if name == "users" else "")
            await store.commit([Put(name, key, text, namespace)])
        async with open_store_publisher(store, ["jobs", "users"]) as publisher:
            async with publisher.subscribe(after(request_, start)) as subscription:
                assert values([await receive(subscription) for _ in expected]) == expected
                await store.commit(
                    [
                        put("a", 1),
                        put("ab", 1),
                        put("b", 1),
                        Put("users", "a", 1),
                        Put("jobs", "a", 1, "blue"),
                    ]
                )
                assert (await receive(subscription)).index == (await store.head()).index


async def test_all_namespaces_are_replayed_where_the_store_knows_them(house: House) -> None:
    async with house.open() as store:
        await commit_each(store, "first")
        start = (await store.head()).cursor
        await store.commit([put("a", 1), Put("jobs", "a", 2, "blue"), put("b", 3)])
        async with open_store_publisher(store, ["jobs"]) as publisher:
            request = SubscribeRequest(JOBS, "a", namespace=ALL)
            async with publisher.subscribe(after(request, start)) as subscription:
                event = await receive(subscription)
                assert [record.value for record in event.payloads] == [1, 2]


async def test_a_slow_reader_gets_every_commit_by_replay(house: House) -> None:
    """D21: with the default, on_lag="close"."""
    async with house.open() as store, open_store_publisher(store, ["jobs"], history=4) as publisher:
        async with publisher.subscribe(ALL_JOBS) as subscription:
            await until_live(subscription)
            await fill(store)
            await until_index(publisher, (await store.head()).index)
            assert values([await receive(subscription) for _ in range(MANY)]) == [*range(1, MANY + 1)]
            await fill(store, 1)
            assert (await receive(subscription)).index == (await store.head()).index


async def test_what_the_log_reads_at_once_may_be_more_than_a_page_of_the_publisher(house: House) -> None:
    """D3: what there was no room for comes with the next one; two of three commits are of other keys."""
    async with house.open() as store:
        await store.commit([put("first", 0)])
        first = (await store.head()).cursor
        for number in range(300):
            await store.commit([put(f"{'xyz'[number % 3]}-{key}", number) for key in range(12)])
        async with open_store_publisher(store, ["jobs"]) as publisher:
            request = SubscribeRequest(JOBS, "x", prefix=True).after(first)
            async with publisher.subscribe(request) as subscription:
                got = [await receive(subscription) for _ in range(100)]
    assert [[record.value for record in each.payloads] for each in got] == [
        [number] * 12 for number in range(0, 300, 3)
    ]


async def test_a_cursor_that_the_log_no_longer_has_is_a_new_snapshot(house: House) -> None:
    async with house.open() as store:
        await fill(store, 6)
        places = await cursors(store)
        await store.compact(places[3].index)
    async with house.open() as store, open_store_publisher(store, ["jobs"]) as publisher:
        for place in places[:3]:
            async with publisher.subscribe(after(ALL_JOBS, place)) as subscription:
                assert kinds([await receive(subscription)]) == ["marker"]
        for place in places[3:5]:
            async with publisher.subscribe(after(ALL_JOBS, place)) as subscription:
                assert (await receive(subscription)).index > place.index


async def test_a_client_of_a_publisher_that_is_further_on_waits(house: House) -> None:
    """D7, etcd #20221: until this one has come as far; nothing older is sent."""
    async with house.open() as store, open_store_publisher(store, ["jobs"]) as publisher:
        await commit_each(store, "a", "b", "c")
        places = await cursors(store)
        request = after(ALL_JOBS, places[1])
        async with publisher.subscribe(request) as subscription:
            assert kinds([await receive(subscription)])[0].endswith(":c=c")


async def test_a_cursor_between_commits_of_other_topics_goes_on(house: House) -> None:
    """It comes from a publisher of more topics, and stands at a commit about nothing here."""
    async with house.open() as store:
        await commit_each(store, "a")
        async with open_store_publisher(store, ["jobs"]) as publisher:
            for number in range(5):
                await store.commit([Put("users", "u", number)])
            await commit_each(store, "b")
            await until_index(publisher, (await store.head()).index)
            for place in (await cursors(store))[:6]:
                async with publisher.subscribe(after(ALL_JOBS, place)) as subscription:
                    assert kinds([await receive(subscription)])[0].endswith(":b=b")
            assert publisher.statistics().opened["stale"] == 0


async def test_very_many_clients_at_different_places_get_what_is_theirs(house: House) -> None:
    async with house.open() as store:
        await fill(store)
        places = await cursors(store)
        async with open_store_publisher(store, ["jobs"], history=2) as publisher:
            got: dict[int, list[JSON]] = {}

            async def read(start: int) -> None:
                request = after(SubscribeRequest(JOBS, "abc"[start % 3]), places[start])
                async with publisher.subscribe(request) as subscription:
                    got[start] = values(await subscription.receive_until_current())

            async with anyio.create_task_group() as tasks:
                for start in range(MANY):
                    tasks.start_soon(read, start)
            for start in range(MANY):
                numbers = range(start + 2, MANY + 1)
                assert got[start] == [number for number in numbers if number % 3 == start % 3]


@pytest.mark.parametrize("house", [*HOUSES, "postgresql"], indirect=True)
@pytest.mark.parametrize("anyio_backend", ["trio", "asyncio"])
@pytest.mark.parametrize(
    ("key", "prefix", "found"), [("x17", False, [17]), ("x299", True, [299, *range(2990, 3000)])]
)
async def test_a_long_commit_is_looked_through_in_many_turns_for_who_asks_for_a_part_of_it(
    house: House, key: str, prefix: bool, found: list[int]
) -> None:
    """D15: the longest stretch is that of a few events, not that of all."""
    async with house.open() as store:
        await store.commit([put("first")])
        place = (await store.head()).cursor
        await store.commit([put(f"x{number}", number) for number in range(3000)])
        await store.commit([put("last")])
        async with open_store_publisher(store, ["jobs"]) as publisher:
            request = SubscribeRequest(JOBS, key, prefix=prefix)
            with stretches() as seen:
                async with publisher.subscribe(request.after(place)) as subscription:
                    events = await subscription.receive_until_current()
    assert values(events) == found
    assert 0 < seen.longest < 2000  # calls, several for each of the events between two checkpoints
