"""U10: a publisher reads of the log what concerns its topics, in small pages, and begins with a bounded part of it."""

import json
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import replace
from itertools import count, pairwise
from pathlib import Path
from typing import Any, ClassVar

import anyio
import anyio.lowlevel
import pytest
from stores.engines import Plain, Stepping
from stores.storehouse import ALL_JOBS, PATIENCE, commit_each, kinds, put, receive, sql, until_live
from stretches import Stretches, stretches
from typing_extensions import override

from trio_stream import SubscribeRequest
from trio_stream.stores import Commit, Operation, Put, Store, open_store_publisher, topic

pytestmark = pytest.mark.anyio

USERS = topic("users")
ALL_USERS = SubscribeRequest(USERS)


class Decoder:
    """Stands in for `json.loads`, and notes of which topics the operations were that it was given."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.loads = json.loads
        self.topics: list[set[str]] = []
        monkeypatch.setattr(json, "loads", self)

    def __call__(self, text: Any, **options: Any) -> Any:
        value = self.loads(text, **options)
        match value:
            case [[_, str(), *_], *_]:
                self.topics.append({each[1] for each in value})
            case _:
                pass  # a value of the state
        return value


@pytest.fixture
def decoder(monkeypatch: pytest.MonkeyPatch) -> Decoder:
    return Decoder(monkeypatch)


def user(key: str, value: Any = 1) -> Put:
    return Put("users", key, value)


async def fill(store: Store, commits: Sequence[Sequence[Put]]) -> None:
    for operations in commits:
        await store.commit(operations)


async def test_commits_of_other_topics_are_not_decoded(store: Store, decoder: Decoder) -> None:
    """At the start and later; the index has passed them all the same."""
    await fill(store, [[put("a")], [user("u")], [user("u"), put("b")], [user("v")]])
    async with open_store_publisher(store, ["jobs"]) as publisher:
        assert publisher.index == 4
        async with publisher.subscribe(ALL_JOBS) as subscription:
            await until_live(subscription)
            await fill(store, [[user("w")], [user("w")], [put("c")], [user("w")]])
            assert kinds([await receive(subscription)]) == ["7:c=x"]
            with anyio.fail_after(PATIENCE):
                await subscription.wait_published(8)
        resumed = replace(ALL_JOBS, index=1, epoch=publisher.epoch)
        async with publisher.subscribe(resumed) as subscription:
            assert kinds([await receive(subscription), await receive(subscription)]) == ["3:b=x", "7:c=x"]
    assert decoder.topics == [{"jobs"}, {"jobs", "users"}, {"jobs"}]


async def test_a_commit_that_only_seems_to_concern_a_topic_does_no_harm(
    store: Store, decoder: Decoder
) -> None:
    """Its text has the name in quotes, as a key, a namespace or a value."""
    async with open_store_publisher(store, ["jobs"]) as publisher:
        async with publisher.subscribe(ALL_JOBS) as subscription:
            await until_live(subscription)
            await store.commit([Put("users", "jobs", ["jobs"], "jobs"), user("a", {"jobs": "jobs"})])
            await store.commit([put("a")])
            assert kinds([await receive(subscription)]) == ["2:a=x"]
    assert decoder.topics == [{"users"}, {"jobs"}]


@pytest.mark.parametrize("many", [0, 1, 2, 16, 17, 3000])
async def test_any_number_of_topics(store: Store, many: int) -> None:
    async with open_store_publisher(store, [f"t{number}" for number in range(many)]) as publisher:
        subscriptions = [
            publisher.subscribe(SubscribeRequest(topic(f"t{number}")))
            for number in {0, many // 2, many - 1}
            if 0 <= number < many
        ]
        for subscription in subscriptions:
            await until_live(subscription)
        await store.commit([put("a"), *(Put(f"t{number}", "a", 1) for number in range(many))])
        for subscription in subscriptions:
            assert kinds([await receive(subscription)]) == ["1:a=1"]
            subscription.unsubscribe()
        never = SubscribeRequest(topic("t0"), index=9, epoch=publisher.epoch)
        if many:
            async with publisher.subscribe(never) as subscription:
                with anyio.fail_after(PATIENCE):
                    await subscription.wait_published(1)


async def test_a_long_log_of_others_is_passed_in_few_steps(
    store: Store, path: Path, decoder: Decoder
) -> None:
    """Many more commits than one page may look at."""
    async with open_store_publisher(store, ["jobs"]) as publisher:
        async with publisher.subscribe(ALL_JOBS) as subscription:
            await until_live(subscription)
            with anyio.fail_after(PATIENCE):
                insert(path, 20_000, user("u"))
                await subscription.wait_published(20_000)
            await store.commit([put("a")])
            assert kinds([await receive(subscription)]) == ["20001:a=x"]
    assert decoder.topics == [{"jobs"}]


def insert(path: Path, count: int, *operations: Put) -> None:
    """So many commits, all the same, in one transaction; the state stays as it is."""
    text = json.dumps([["put", each.topic, each.namespace, each.key, each.value] for each in operations])
    quoted = text.replace(", ", ",").replace("'", "''")
    sql(
        path,
        "BEGIN",
        f"""WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {count})
        INSERT INTO ts_log SELECT idx + i, randomblob(8), '{quoted}', 0, '' FROM ts_head, n""",
        f"UPDATE ts_head SET idx = idx + {count}",
        "COMMIT",
    )


LARGE = "x" * 400_000  # of which ten are about as much as a publisher begins with


async def test_a_publisher_begins_with_a_bounded_part_of_the_log(store: Store) -> None:
    """And nobody resumes from before it."""
    for n in range(20):
        await store.commit([put(f"{n}", LARGE)])
    async with open_store_publisher(store, ["jobs"]) as publisher:
        statistics = publisher.statistics()
        assert statistics.index == 20
        assert statistics.topics["jobs"].commits == 10
        assert statistics.topics["jobs"].floor == 10
        async with publisher.subscribe(replace(ALL_JOBS, index=9, epoch=publisher.epoch)) as subscription:
            assert kinds([await receive(subscription)]) == ["marker"]
        async with publisher.subscribe(replace(ALL_JOBS, index=10, epoch=publisher.epoch)) as subscription:
            assert (await receive(subscription)).index == 11


async def test_what_others_have_committed_does_not_count(store: Store) -> None:
    for _ in range(20):
        await store.commit([put("a", LARGE)])
        await store.commit([user("u")])
    async with open_store_publisher(store, ["users"]) as publisher:
        assert publisher.statistics().topics["users"].commits == 20


async def test_one_commit_that_is_too_large_is_not_loaded(store: Store, decoder: Decoder) -> None:
    await store.commit([put("a", LARGE * 11)])
    async with open_store_publisher(store, ["jobs"]) as publisher:
        assert publisher.statistics().topics["jobs"].floor == 1
    assert decoder.topics == []


async def test_where_reading_is_slow_it_is_done_in_small_steps(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As from a slow disk: in worker threads each look at the clock is a second later."""
    real, looks = time.monotonic, count()

    def monotonic() -> float:
        is_worker = threading.current_thread() is not threading.main_thread()
        return real() + (next(looks) if is_worker else 0)

    for n in range(20):
        await fill(store, [[put(f"{n}", LARGE)], [user("u")]])
    monkeypatch.setattr("time.monotonic", monotonic)
    async with open_store_publisher(store, ["jobs"]) as publisher:
        statistics = publisher.statistics()
        assert (statistics.index, statistics.topics["jobs"].commits) == (40, 10)
        resumed = replace(ALL_JOBS, index=35, epoch=publisher.epoch)
        async with publisher.subscribe(resumed) as subscription:
            await fill(store, [[user("u")], [put("a")], [user("u")], [put("b")]])
            indexes = [(await receive(subscription)).index for _ in range(4)]
            assert indexes == [37, 39, 42, 44]


async def test_history_stays_the_upper_bound(store: Store) -> None:
    await commit_each(store, "a", "b", "c", "d")
    async with open_store_publisher(store, ["jobs"], history=3) as publisher:
        assert publisher.statistics().topics["jobs"].commits == 3


@pytest.mark.parametrize("way", [lambda store: store, Plain], ids=["by topic", "all"])
async def test_no_history_is_read_where_none_is_asked_for(
    store: Store, decoder: Decoder, way: Callable[[Store], Store]
) -> None:
    """What comes later is kept, for readers that are slow."""
    await commit_each(store, "a", "b")
    async with open_store_publisher(way(store), ["jobs"], history=0) as publisher:
        assert (publisher.index, publisher.statistics().topics["jobs"].floor) == (2, 2)
        assert decoder.topics == []
        async with publisher.subscribe(ALL_JOBS) as subscription:
            assert kinds(await until_live(subscription)) == ["1:a=a", "2:b=b", "eos@2"]
            await commit_each(store, *"cdefgh")
            with anyio.fail_after(PATIENCE):
                await subscription.wait_published(8)
            assert kinds([await receive(subscription) for _ in range(6)])[-1] == "8:h=h"


@pytest.mark.parametrize(("history", "error"), [(-1, ValueError), (True, TypeError), (1.5, TypeError)])
async def test_a_history_that_is_none_is_refused(store: Store, history: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="history"):
        async with open_store_publisher(store, ["jobs"], history=history):
            pass


async def test_where_the_log_cannot_be_read_by_topic_the_events_are_counted(store: Store, path: Path) -> None:
    """Of 100,000 that are in the log the newest are kept; and what is kept begins at a commit."""
    await store.commit([put("first")])
    insert(path, 100, *(put(f"{number}") for number in range(1000)))
    async with open_store_publisher(Plain(store), ["jobs"]) as publisher:
        statistics = publisher.statistics()
        assert statistics.index == 101
        commits = statistics.topics["jobs"].commits
        assert 0 < commits <= 66
        assert statistics.topics["jobs"].floor == 101 - commits
        resumed = replace(ALL_JOBS, index=101 - commits, epoch=publisher.epoch)
        async with publisher.subscribe(resumed) as subscription:
            assert (await receive(subscription)).index == 102 - commits
        async with publisher.subscribe(replace(resumed, index=100 - commits)) as subscription:
            assert kinds([await receive(subscription)]) == ["marker"]


class AllAtOnce(Stepping):
    """Gives without a checkpoint what it has: an engine need not have any while something is there."""

    def __init__(self, store: Store, commits: Sequence[Commit]) -> None:
        super().__init__(store)
        self.ready = list(reversed(commits))

    @override
    async def step(self, commits: AsyncIterator[Commit], after: int) -> Commit:
        if not self.ready:
            await anyio.sleep_forever()
        return self.ready.pop()


class Counted(tuple[Operation, ...]):
    """Operations that are counted when somebody takes them."""

    __slots__ = ()
    seen: ClassVar[Stretches] = Stretches()

    @override
    def __iter__(self) -> Iterator[Operation]:
        for operation in super().__iter__():
            self.seen.count()
            yield operation

    @override
    def __getitem__(self, where: Any) -> Any:
        part = super().__getitem__(where)
        self.seen.count(len(part) if isinstance(where, slice) else 1)
        return part


@pytest.mark.parametrize("anyio_backend", ["trio", "asyncio"])
@pytest.mark.parametrize("name", ["jobs", "users"])
@pytest.mark.parametrize("each", [1, 7, 64, 65, 1000])
async def test_the_feed_has_a_checkpoint_at_least_every_so_many_events(
    store: Store, monkeypatch: pytest.MonkeyPatch, each: int, name: str
) -> None:
    """One commit is published in one piece, but is made ready in several; those of others count, too."""
    operations = Counted(Put(name, f"{number}", 1) for number in range(each))
    many = 2 * 4096 // each
    engine = AllAtOnce(store, [Commit(index + 1, operations) for index in range(many)])
    published: list[int] = []
    async with open_store_publisher(engine, ["jobs"]) as publisher:
        with stretches(calls=False) as seen:
            monkeypatch.setattr(Counted, "seen", seen)
            while publisher.index < many:
                published.append(publisher.index)
                await anyio.lowlevel.checkpoint()
    assert 0 < seen.most_counted <= 64
    steps = [after - before for before, after in pairwise([*published, many])]
    assert max(steps) * each <= 2 * max(
        64, each
    )  # two turns, where the loop takes this task first and then last
