"""A store passes the conformance kit, and one that lies about its index is found."""

import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from trio_stream.stores import Name, Operation, Store, open_store
from trio_stream.testing import STORE_CHECKS, PromiseBroken, check_store


@asynccontextmanager
async def open_cached(url: str) -> AsyncIterator[Store]:
    """A store whose author wanted to save a round trip."""
    async with open_store(url) as store:
        known = (await store.head()).index
        commit = store.commit

        async def cached_commit(
            operations: Sequence[Operation], *, expect: Mapping[Name, int] | None = None
        ) -> int:
            nonlocal known
            await commit(operations, expect=expect)
            known += 1  # somebody else may have committed too
            return known

        store.commit = cached_commit  # type: ignore[method-assign]
        yield store


async def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite:{Path(folder) / 'checked.db'}"
        with trio.fail_after(50):
            await check_store(lambda: open_store(url))
        print("SQLite passes", "all" if len(STORE_CHECKS) > 20 else "some", "checks")

        check = next(c for c in STORE_CHECKS if c.__name__ == "writers_share_one_order")
        try:
            await check(lambda: open_cached(url))
        except* PromiseBroken as group:
            print("the other one:", str(group.exceptions[0]).partition(" at ")[0])


trio.run(main)
