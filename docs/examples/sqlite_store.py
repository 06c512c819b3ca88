"""A catalogue in an SQLite file: committed, followed, and resumed after a restart."""

import tempfile
from pathlib import Path

import trio

from trio_stream import Event, SubscribeRequest
from trio_stream.stores import (
    ConflictError,
    Delete,
    Name,
    Put,
    Record,
    open_store,
    open_store_publisher,
    topic,
)

SERVICES = topic("services")


def show(event: Event[Record]) -> None:
    if event.is_framing:
        print("   ", event.index, event.payload)
    for one in event.events:
        match one.payload:
            case Record(key, value, operation):
                print("   ", one.index, operation, key, value)


async def first_run(url: str) -> SubscribeRequest[Record]:
    async with (
        open_store(url) as store,
        open_store_publisher(store, ["services"]) as publisher,
    ):
        await store.commit(
            [
                Put("services", "web", {"port": 80}),
                Put("services", "db", {"port": 5432}),
            ]
        )
        async with publisher.subscribe(SubscribeRequest(SERVICES)) as subscription:
            async for event in subscription:
                show(event)
                if event.is_end_of_snapshot:
                    await store.commit([Put("services", "web", {"port": 8080})])
                elif subscription.index == 2:
                    break
        return subscription.resume_request()


async def in_between(url: str) -> None:
    async with open_store(url) as store:
        entry = await store.get("services", "db")
        assert entry is not None
        expected = {Name("services", "db"): entry.index}
        await store.commit([Delete("services", "db")], expect=expected)
        try:
            await store.commit([Put("services", "db", {"port": 5433})], expect=expected)
        except ConflictError as conflict:
            print("   ", conflict)


async def second_run(url: str, request: SubscribeRequest[Record]) -> None:
    async with (
        open_store(url) as store,
        open_store_publisher(store, ["services"]) as publisher,
    ):
        async with publisher.subscribe(request) as subscription:
            show(await subscription.receive())


async def main() -> None:
    with tempfile.TemporaryDirectory() as directory:
        url = f"sqlite:{Path(directory) / 'services.db'}"
        print("the first run")
        request = await first_run(url)
        print("while nobody follows")
        await in_between(url)
        print("the second run goes on")
        await second_run(url, request)


trio.run(main)
