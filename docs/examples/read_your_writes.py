"""A view that has what was just committed, and two views at one index."""

import tempfile
from collections.abc import Iterable
from pathlib import Path

import trio

from trio_stream import SubscribeRequest
from trio_stream.stores import Put, Record, Store, open_store, open_store_publisher, topic
from trio_stream.view import Frozen, View, consistent, open_view


async def rename(store: Store, names: View[str, Record], key: str, name: str) -> Frozen[str, Record]:
    index = await store.commit([Put("names", key, name)])
    return await names.wait_index(index)


async def unpaid(orders: View[str, Record], payments: View[str, Record], index: int) -> Iterable[str]:
    ordered, paid = await consistent(orders, payments, at=index)
    return sorted(ordered.keys() - paid.keys())


async def main() -> None:
    names: View[str, Record]
    orders: View[str, Record]
    payments: View[str, Record]
    with tempfile.TemporaryDirectory() as folder:
        async with (
            open_store(f"sqlite:{Path(folder) / 'shop.db'}") as store,
            open_store_publisher(store, ["names", "orders", "payments"]) as publisher,
            open_view(publisher.subscribe, SubscribeRequest(topic("names"))) as names,
            open_view(publisher.subscribe, SubscribeRequest(topic("orders"))) as orders,
            open_view(publisher.subscribe, SubscribeRequest(topic("payments"))) as payments,
        ):
            renamed = await rename(store, names, "ann", "Ann Lee")
            print(renamed.index, renamed["ann"].value)

            index = await store.commit([Put("orders", "o-1", 5), Put("orders", "o-2", 7)])
            await store.commit([Put("payments", "o-1", 5)])
            print("unpaid at", index, await unpaid(orders, payments, index))
            print("unpaid at", index + 1, await unpaid(orders, payments, index + 1))


trio.run(main)
