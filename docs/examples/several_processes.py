"""Four workers behind one port, each with a publisher of one store; clients that do not care which one they get.

Each request and each answer is a line of JSON. The argument is the URL of a new store; without it, it is a new file.
"""

import json
import os
import random
import socket
import sys
import tempfile
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import anyio
from anyio.abc import ByteSendStream, Process, SocketStream
from anyio.streams.buffered import BufferedByteReceiveStream

from trio_stream import Cursor, Event, EventPublisher, SubscribeRequest, SubscriptionForceClosed
from trio_stream.stores import (
    Delete,
    Operation,
    Put,
    Record,
    Revoke,
    Store,
    StoreError,
    open_store,
    open_store_publisher,
    topic,
)

COUNTS = topic("counts")
WORKERS, KILLS, CLIENTS = 4, 3, 3
HEARTBEAT = 10  # seconds without a change after which a line is sent all the same
OLD = 10  # seconds without a word of the store after which clients should go elsewhere
CONNECTION_LOST = (
    OSError,
    anyio.BrokenResourceError,
    anyio.DelimiterNotFound,
    anyio.EndOfStream,
    anyio.IncompleteRead,
)


async def send(stream: ByteSendStream, line: object) -> None:
    await stream.send(json.dumps(line).encode() + b"\n")


async def receive(lines: BufferedByteReceiveStream) -> Any:
    return json.loads(await lines.receive_until(b"\n", 1_000_000))


# A worker: it is started with the number of the port, and with the URL of the store in its environment.


async def work(url: str, port: int) -> None:
    async with (
        open_store(url) as store,
        open_store_publisher(store, ["counts"]) as publisher,
        await anyio.create_tcp_listener(local_host="127.0.0.1", local_port=port, reuse_port=True) as listener,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(listener.serve, partial(serve, store, publisher))
        print("listening", flush=True)
        await anyio.wait_readable(sys.stdin)  # which ends when the worker is to end, or its parent has died
        tasks.cancel_scope.cancel()


async def serve(store: Store, publisher: EventPublisher, stream: SocketStream) -> None:
    with suppress(*CONNECTION_LOST):
        async with stream:
            try:
                match await receive(BufferedByteReceiveStream(stream)):
                    case {"token": str(token), "after": str(after)}:
                        await follow(store, publisher, stream, token, after)
                    case {"id": str(number), **order}:
                        index = await store.commit(operations(order), id=UUID(number))
                        await send(stream, {"index": index})
            except ValueError as error:
                await send(stream, {"closed": str(error)})
            except StoreError as error:  # the client comes again, with the same id
                print(error, file=sys.stderr)


def operations(order: dict[Any, Any]) -> list[Operation]:
    match order:
        case {"count": int(count)}:
            return [Put("counts", f"key {count % 3}", count)]
        case {"permit": str(user)}:
            return [Put("users", user, "may read")]
        case {"ban": str(user)}:
            return [Revoke(user), Delete("users", user)]
        case _:
            raise ValueError("not a known order")


async def follow(
    store: Store, publisher: EventPublisher, stream: SocketStream, token: str, after: str
) -> None:
    request = SubscribeRequest(COUNTS, token=token)
    if after:
        request = request.after(Cursor.parse(after))
    if is_old(publisher):
        return await send(stream, {"closed": "old"})
    async with publisher.subscribe(request) as subscription:
        # First subscribe, then look at the rights: a ban from now on closes the subscription.
        if await store.get("users", token) is None:
            return await send(stream, {"closed": "not permitted"})
        await send(stream, {"worker": os.getpid()})
        try:
            while True:
                line: dict[str, Any] = {}
                with anyio.move_on_after(HEARTBEAT):
                    line = as_line(await subscription.receive())
                cursor = subscription.cursor
                await send(stream, {**line, "cursor": str(cursor) if cursor.index else ""})
                if is_old(publisher):
                    return await send(stream, {"closed": "old"})
        except SubscriptionForceClosed as closed:
            await send(stream, {"closed": closed.reason.value})


def is_old(publisher: EventPublisher) -> bool:
    """Whether this worker may have lost the store: then another one has more to tell."""
    return publisher.feed_age is not None and publisher.feed_age > OLD


def as_line(event: Event[Record]) -> dict[str, Any]:
    if event.framing:
        return {"framing": event.framing.value}
    return {"changes": [(record.key, record.value) for record in event.payloads]}


# A client.


@dataclass
class Client:
    """Has a state, and a cursor that says which; any worker will do for it."""

    token: str
    state: dict[str, int] = field(default_factory=dict)
    cursor: str = ""
    snapshots: int = 0
    has_missed: bool = False
    last: int | None = None  # the count with which it is done

    @property
    def newest(self) -> int:
        return max(self.state.values(), default=0)

    async def run(self, port: int) -> None:
        while self.newest != self.last:
            try:
                await self.visit(port, lines=random.randint(1, 30))
            except CONNECTION_LOST:
                await anyio.sleep(random.uniform(0, 0.1))

    async def visit(self, port: int, lines: int) -> None:
        async with await anyio.connect_tcp("127.0.0.1", port) as stream:
            await send(stream, {"token": self.token, "after": self.cursor})
            if not self.cursor:
                self.state.clear()
            received = BufferedByteReceiveStream(stream)
            for _ in range(lines):
                with anyio.fail_after(3 * HEARTBEAT):
                    self.take(await receive(received))
                if self.newest == self.last:
                    break

    def take(self, line: dict[str, Any]) -> None:
        match line:
            case {"closed": "token" | "not permitted"}:  # what it has it may no longer see
                self.state.clear()
                self.cursor = ""
            case {"framing": "new-snapshot-to-follow"}:
                self.state.clear()
            case {"framing": "end-of-snapshot"}:
                self.snapshots += 1
            case {"changes": changes}:
                for key, count in changes:
                    # Behind the snapshot each count is one more than the last.
                    if self.cursor and count != self.newest + 1:
                        self.has_missed = True
                    self.state[key] = count
        self.cursor = line.get("cursor", self.cursor)


async def commit(port: int, **order: object) -> int:
    """By any worker, however often it takes: what has the same id is done once."""
    order["id"] = uuid4().hex
    while True:
        try:
            async with await anyio.connect_tcp("127.0.0.1", port) as stream:
                await send(stream, order)
                answer = await receive(BufferedByteReceiveStream(stream))
            return int(answer["index"])
        except CONNECTION_LOST:
            await anyio.sleep(random.uniform(0, 0.1))


# What starts the workers, and kills them.


@dataclass
class Workers:
    url: str
    port: int
    processes: list[Process] = field(default_factory=list)

    async def start(self) -> None:
        command = [sys.executable, __file__, "worker", str(self.port)]
        environment = {**os.environ, "TRIO_STREAM_STORE": self.url}  # no argument: everybody can see those
        process = await anyio.open_process(command, env=environment, stderr=None)
        self.processes.append(process)
        assert process.stdout is not None
        await process.stdout.receive()

    async def kill_one(self) -> None:
        process = self.processes.pop(random.randrange(WORKERS))
        process.kill()
        await process.aclose()


async def main(url: str) -> None:
    with socket.socket() as reserved:  # it does not listen; the workers do, all at its port
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        reserved.bind(("127.0.0.1", 0))
        port = reserved.getsockname()[1]
        workers = Workers(url, port)
        async with anyio.create_task_group() as tasks:
            for _ in range(WORKERS):
                tasks.start_soon(workers.start)
        for user in ("ann", "bob"):
            await commit(port, permit=user)
        await count_while_workers_are_killed(workers)
        await ban_bob(port)
        for process in workers.processes:
            await process.aclose()


async def count_while_workers_are_killed(workers: Workers) -> None:
    clients = [Client("ann") for _ in range(CLIENTS)]
    killed = anyio.Event()

    async def kill() -> None:
        for _ in range(KILLS):
            await workers.kill_one()
            await workers.start()
        killed.set()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(kill)
        for client in clients:
            tasks.start_soon(client.run, workers.port)
        count = 0
        while not killed.is_set():
            count += 1
            await commit(workers.port, count=count)
        for client in clients:
            client.last = count + 1
        await commit(workers.port, count=count + 1)
    print(f"{KILLS} workers were killed, and others started in their place")
    async with open_store(workers.url) as store, store.list("counts") as entries:
        state = {key: entry.value async for key, entry in entries}
    for client in clients:
        print(
            "a client: it has",
            "missed something" if client.has_missed else "had every commit once;",
            "its state is",
            "that of the store;" if client.state == state else "wrong;",
            f"it had {client.snapshots} snapshot",
        )


async def ban_bob(port: int) -> None:
    async with AsyncExitStack() as stack:
        streams: dict[int, BufferedByteReceiveStream] = {}  # one at each worker, by its process id
        while len(streams) < WORKERS:
            lines = await follow_as(stack, port, "bob")
            streams[(await receive(lines))["worker"]] = lines
        had = await until(streams[min(streams)], "framing", "end-of-snapshot")
        await commit(port, ban="bob")
        for lines in streams.values():
            await until(lines, "closed", "token")
        print(f"one commit has closed bob's streams at {len(streams)} workers")
        lines = await follow_as(stack, port, "bob", had["cursor"])
        print("bob comes back:", (await receive(lines))["closed"])
        await commit(port, permit="bob")
        lines = await follow_as(stack, port, "bob", had["cursor"])
        await receive(lines)
        print("bob may again, and comes with his old cursor:", (await receive(lines))["framing"])


async def follow_as(
    stack: AsyncExitStack, port: int, token: str, after: str = ""
) -> BufferedByteReceiveStream:
    stream = await stack.enter_async_context(await anyio.connect_tcp("127.0.0.1", port))
    await send(stream, {"token": token, "after": after})
    return BufferedByteReceiveStream(stream)


async def until(lines: BufferedByteReceiveStream, key: str, value: str) -> Any:
    while (line := await receive(lines)).get(key) != value:
        pass
    return line


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["worker", port]:
            anyio.run(work, os.environ["TRIO_STREAM_STORE"], int(port))
        case [url]:
            anyio.run(main, url)
        case _:
            with tempfile.TemporaryDirectory() as directory:
                anyio.run(main, f"sqlite:{Path(directory) / 'counts.db'}")
