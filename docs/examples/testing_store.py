"""A store passes the conformance kit, and one that lies about its index is found."""

import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio

from trio_stream.stores import Operation, Store, open_store
from trio_stream.testing import STORE_CHECKS, PromiseBroken, check_store

# Leave `checks` out for all of them, which takes half a minute.
NAMES = ("indexes_increase", "writers_share_one_order", "an_older_copy_is_told_from_the_newer_one")
A_FEW = [check for check in STORE_CHECKS if check.__name__ in NAMES]


@asynccontextmanager
async def open_cached(url: str) -> AsyncIterator[Store]:
    """A store whose author wanted to save a round trip."""
    async with open_store(url) as store:
        known = (await store.head()).index
        commit = store.commit

        async def cached_commit(operations: Sequence[Operation], **options: Any) -> int:
            nonlocal known
            await commit(operations, **options)
            known += 1  # somebody else may have committed too
            return known

        store.commit = cached_commit  # type: ignore[method-assign]
        yield store


async def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite:{Path(folder) / 'checked.db'}"
        report = await check_store(lambda: open_store(url), checks=A_FEW)
        print("SQLite keeps", len(report.kept), "of", len(A_FEW), "promises")
        for name, reason in report.not_run.items():
            print(f"{name}: not checked, {reason}")

        try:
            await check_store(lambda: open_cached(url), checks=A_FEW)
        except PromiseBroken as broken:
            print("the other one breaks a promise:", broken.promise)


trio.run(main)
