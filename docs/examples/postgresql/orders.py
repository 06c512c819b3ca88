"""An order and its event: both are committed, or neither is. The first argument is the URL of the database."""

import sys

import psycopg
import trio

from trio_stream import SubscribeRequest
from trio_stream.stores import Put, open_store, open_store_publisher, topic
from trio_stream.stores.postgresql import create_tables, record

URL = sys.argv[1]


def prepare() -> None:
    with psycopg.connect(URL) as connection:
        connection.execute("CREATE TABLE orders (number integer PRIMARY KEY, item text NOT NULL)")
        create_tables(connection)


def place_order(number: int, item: str) -> None:
    with psycopg.connect(URL) as connection:  # one transaction, which the end of the block commits
        connection.execute("INSERT INTO orders VALUES (%s, %s)", [number, item])
        record(connection, [Put("orders", str(number), {"item": item})])


async def main() -> None:
    await trio.to_thread.run_sync(prepare)
    orders = topic("orders")
    async with open_store(URL) as store, open_store_publisher(store, ["orders"]) as publisher:
        subscription = publisher.subscribe(SubscribeRequest(orders))
        await subscription.receive_until_current()
        await trio.to_thread.run_sync(place_order, 1, "tea")
        try:
            await trio.to_thread.run_sync(place_order, 1, "coffee")
        except psycopg.errors.UniqueViolation:
            print("order 1 was placed before: no row, and no event")
        await trio.to_thread.run_sync(place_order, 2, "coffee")
        async for event in subscription:
            print(event.index, event.payload)
            if event.index == 2:
                break


trio.run(main)
