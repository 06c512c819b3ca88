"""An application with a table of its own: a row and the event about it are committed together, or neither is.

The first argument is the URL of the database.
"""

import sys

import psycopg
import trio
from psycopg.rows import scalar_row

from trio_stream import SubscribeRequest
from trio_stream.stores import Put, Record, open_store, open_store_publisher, topic
from trio_stream.stores.postgresql import create_tables, record

ORDERS = """CREATE TABLE orders (
    id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY, item text NOT NULL, count integer CHECK (count > 0)
)"""


def create(url: str) -> None:
    with psycopg.connect(url) as connection:
        connection.execute(ORDERS)
        create_tables(connection)


def place_order(url: str, item: str, count: int) -> int:
    with psycopg.connect(
        url
    ) as connection:  # one transaction: the end of the block commits it, an error rolls it back
        insert = "INSERT INTO orders (item, count) VALUES (%s, %s) RETURNING id"
        cursor = connection.cursor(row_factory=scalar_row)
        number = cursor.execute(insert, [item, count]).fetchone()
        return record(connection, [Put("orders", str(number), {"item": item, "count": count})])


async def main(url: str) -> None:
    await trio.to_thread.run_sync(create, url)
    async with (
        open_store(url) as store,
        open_store_publisher(store, ["orders"]) as publisher,
        publisher.subscribe(SubscribeRequest(topic("orders"))) as subscription,
    ):
        await subscription.receive_until_current()
        await trio.to_thread.run_sync(place_order, url, "tea", 2)
        try:
            await trio.to_thread.run_sync(place_order, url, "salt", 0)
        except psycopg.errors.CheckViolation as error:
            print("no row and no event:", error.diag.constraint_name)
        await trio.to_thread.run_sync(place_order, url, "jam", 1)
        async for event in subscription:
            match event.payload:
                case Record(key, value):
                    print(f"{event.index}: order {key}: {value}")
            if event.index == 2:
                break


if __name__ == "__main__":
    trio.run(main, sys.argv[1])
