"""An application with a table of its own: a row and the event about it are committed together, or neither is."""

import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path

import trio

from trio_stream import SubscribeRequest
from trio_stream.stores import Put, Record, open_store, open_store_publisher, topic
from trio_stream.stores.sqlite import create_tables, record

ORDERS = """CREATE TABLE orders (
    id INTEGER PRIMARY KEY, item TEXT NOT NULL, count INTEGER CHECK (count > 0)
)"""


def create(file: str) -> None:
    with closing(sqlite3.connect(file)) as connection:
        connection.execute(ORDERS)
        create_tables(connection)


def place_order(file: str, item: str, count: int) -> int:
    with closing(sqlite3.connect(file, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        row = connection.execute("INSERT INTO orders (item, count) VALUES (?, ?)", (item, count))
        index = record(connection, [Put("orders", str(row.lastrowid), {"item": item, "count": count})])
        connection.execute("COMMIT")
    return index  # after an error the connection is closed without a COMMIT: neither is there


async def main(file: str) -> None:
    await trio.to_thread.run_sync(create, file)
    async with (
        open_store(f"sqlite:{file}") as store,
        open_store_publisher(store, ["orders"]) as publisher,
        publisher.subscribe(SubscribeRequest(topic("orders"))) as subscription,
    ):
        await subscription.receive_until_current()
        await trio.to_thread.run_sync(place_order, file, "tea", 2)
        try:
            await trio.to_thread.run_sync(place_order, file, "salt", 0)
        except sqlite3.IntegrityError as error:
            print("no row and no event:", error)
        await trio.to_thread.run_sync(place_order, file, "jam", 1)
        async for event in subscription:
            match event.payload:
                case Record(key, value):
                    print(f"{event.index}: order {key}: {value}")
            if event.index == 2:
                break


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as directory:
        trio.run(main, str(Path(directory) / "shop.db"))
