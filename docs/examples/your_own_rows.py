"""An application with a table of its own: its rows and the events about them are committed together."""

import sqlite3
import tempfile
from pathlib import Path

import trio

from trio_stream import SubscribeRequest
from trio_stream.stores import Put, Record, open_store, open_store_publisher, topic
from trio_stream.stores.sqlite import create_tables, record

ORDERS = topic("orders")


def connect(file: str) -> sqlite3.Connection:
    return sqlite3.connect(file, isolation_level=None)


def create(file: str) -> None:
    connection = connect(file)
    connection.execute(
        "CREATE TABLE orders (id INTEGER PRIMARY KEY, item TEXT, count INTEGER CHECK (count > 0))"
    )
    create_tables(connection)
    connection.close()


def place_order(file: str, item: str, count: int) -> int:
    """In a transaction of the application's own; the last statement before its end is the commit of the store."""
    connection = connect(file)
    try:
        connection.execute("BEGIN IMMEDIATE")
        row = connection.execute("INSERT INTO orders (item, count) VALUES (?, ?)", (item, count))
        index = record(connection, [Put("orders", str(row.lastrowid), {"item": item, "count": count})])
        connection.execute("COMMIT")
        return index
    finally:
        connection.close()  # what was not committed is rolled back


async def follow(file: str, seen: list[str], ready: trio.Event) -> None:
    async with (
        open_store(f"sqlite:{file}") as store,
        open_store_publisher(store, ["orders"]) as publisher,
        publisher.subscribe(SubscribeRequest(ORDERS)) as subscription,
    ):
        ready.set()
        async for event in subscription:
            for one in event.events:
                match one.payload:
                    case Record(key, value):
                        seen.append(f"{one.index}: order {key}: {value}")
            if subscription.index == 2:
                break


async def main() -> None:
    with tempfile.TemporaryDirectory() as directory:
        file = str(Path(directory) / "orders.db")
        await trio.to_thread.run_sync(create, file)
        seen: list[str] = []
        ready = trio.Event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(follow, file, seen, ready)
            await ready.wait()
            await trio.to_thread.run_sync(place_order, file, "tea", 2)
            try:
                await trio.to_thread.run_sync(place_order, file, "salt", 0)
            except sqlite3.IntegrityError as error:
                print("refused:", error)
            await trio.to_thread.run_sync(place_order, file, "jam", 1)
        print(*seen, sep="\n")


trio.run(main)
