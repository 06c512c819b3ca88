"""The file is replaced by an older copy, again and again, under a feed: the fork is noticed before anything goes on."""

import random
from pathlib import Path

import pytest
from evidence import count
from faults.following import log, reading
from proof import amount
from stores.storehouse import copy, open_at, put

from trio_stream import CloseReason, Event
from trio_stream.stores import Put, Record, Store, open_store_publisher

pytestmark = [pytest.mark.anyio, pytest.mark.slow]


@pytest.mark.parametrize("seed", range(amount(3, 25)))
async def test_no_subscriber_goes_on_where_the_timeline_has_forked(
    seed: int, store: Store, path: Path, tmp_path: Path
) -> None:
    """D6, D7: each trace is right by the log of its own epoch, and every fork has ended the one before."""
    generator = random.Random(seed)
    # Of each epoch that a subscriber can have seen, all its commits.
    logs: dict[str, list[list[Event[Record]]]] = {}
    async with (
        open_store_publisher(store, ["jobs"], snapshot_cache_ttl=0) as publisher,
        reading(publisher) as reader,
    ):
        for fork in range(4):
            await some_commits(store, generator, fork)
            older = copy(path, tmp_path / "older.db")
            await some_commits(store, generator, fork)
            head = await store.head()
            logs[head.epoch] = await log(store)
            await reader.until(lambda index=head.index: reader.index == index)  # type: ignore[misc]
            if generator.random() < 0.5:  # the copy has gone on elsewhere, and may be ahead
                async with open_at(older) as elsewhere:
                    await some_commits(elsewhere, generator, fork)
                    await some_commits(elsewhere, generator, fork)
            ends = len(reader.ends)
            older.replace(path)
            await reader.until(lambda ends=ends: CloseReason.REFRESH in reader.ends[ends:])  # type: ignore[misc]
            assert (await store.head()).epoch != head.epoch
        index = await store.commit([put("end")])
        head = await store.head()
        logs[head.epoch] = await log(store)
        await reader.until(lambda: reader.index == index)
    reader.check(logs)
    assert reader.ends.count(CloseReason.REFRESH) >= 4
    count(
        "fault",
        "the file replaced by an older copy under a feed: noticed, subscribers closed, a new epoch",
        4,
    )
    assert set(reader.ends) <= {CloseReason.REFRESH, CloseReason.SNAPSHOT_FAILED}


async def some_commits(store: Store, generator: random.Random, fork: int) -> None:
    for _ in range(generator.randint(1, 4)):
        await store.commit([Put("jobs", f"{generator.randint(0, 3)}", [fork, generator.random()])])
