"""Rows that the log has lost are told, also at its end, and nobody waits for them or looks for them for ever."""

import anyio
import pytest
from stores.postgresql.server import Server
from stores.storehouse import PATIENCE, commit_each, take

from trio_stream.stores import Store, UnreadableCommitError, open_store

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("lost", ["idx = 2", "idx > 3", "idx > 1"])
@pytest.mark.parametrize("is_new", [False, True])
async def test_commits_that_are_missing_are_told(
    server: Server, url: str, store: Store, lost: str, is_new: bool
) -> None:
    """Whether the store has seen them, or is opened behind them."""
    await commit_each(store, *"abcde")
    head = await store.head()
    schema = url.partition("schema=")[2]
    server.sql(f"DELETE FROM {schema}.ts_log WHERE {lost}")
    (first, last) = {"idx = 2": (2, 2), "idx > 3": (4, 5), "idx > 1": (2, 5)}[lost]
    with anyio.fail_after(PATIENCE):
        async with open_store(url) as other:
            seen = other if is_new else store
            async with seen.changes(0) as commits:
                assert await take(commits, first - 1) == list(range(1, first))
                with pytest.raises(UnreadableCommitError, match=f"commit {first} is missing") as raised:
                    await anext(commits)
            assert raised.value.index == last
            assert await seen.head() == head
