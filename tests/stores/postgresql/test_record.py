"""A commit in the application's own transaction: its rows and the commit are there together, or neither is."""

import threading
from collections.abc import Callable
from typing import Any

import anyio
import anyio.to_thread
import psycopg
import pytest
from backends import ASYNCIO
from stores.postgresql.server import Server
from stores.storehouse import PATIENCE, put, state, take

from trio_stream.stores import (
    ConflictError,
    Delete,
    LimitExceededError,
    Name,
    Operation,
    Put,
    Revoke,
    Store,
    StoreError,
    open_store,
)
from trio_stream.stores.postgresql import arecord, create_tables, record, schema_sql

pytestmark = pytest.mark.anyio


@pytest.fixture
def schema(server: Server) -> str:
    """With a table of the application's own."""
    schema = server.new_schema()
    server.sql(f"CREATE SCHEMA {schema}", f"CREATE TABLE {schema}.orders (id integer PRIMARY KEY)")
    return schema


@pytest.fixture
def store_url(server: Server, schema: str) -> str:
    return server.url(schema=schema)


def order(connection: "psycopg.Connection[object]", number: int) -> None:
    """A row of the application's own."""
    connection.execute("INSERT INTO orders VALUES (%s)", [number])


def connect(server: Server, schema: str, **options: Any) -> "psycopg.Connection[object]":
    connection = server.connect(**options)
    connection.execute(f"SET search_path TO {schema}")
    connection.commit()
    return connection


async def test_the_row_and_the_commit_come_together(server: Server, schema: str, store_url: str) -> None:
    async with open_store(store_url) as store, store.changes(0) as commits:
        with connect(server, schema) as connection:
            order(connection, 1)
            index = record(connection, [put("a", 1), Revoke("token")])
            assert await state(store) == {}
        assert await take(commits, 1) == [index] == [1]
        assert await state(store) == {"a": 1}
        assert index.cursor == (await store.head()).cursor
        assert list((await store.revocations()).newest.values()) == [1]
        assert server.sql(f"SELECT id FROM {schema}.orders") == [(1,)]


async def test_a_transaction_that_is_rolled_back_gives_its_index_back(
    server: Server, schema: str, store_url: str
) -> None:
    async with open_store(store_url) as store:
        with connect(server, schema) as connection:
            order(connection, 1)
            assert record(connection, [put("a")]) == 1
            connection.rollback()
        assert (await store.head()).index == 0
        assert server.sql(f"SELECT id FROM {schema}.orders") == []
        assert await store.commit([put("b")]) == 1
        with connect(server, schema) as connection:
            with pytest.raises(ZeroDivisionError), connection.transaction():
                record(connection, [put("c")])
                raise ZeroDivisionError
            with connection.transaction():  # the first call has never been
                assert record(connection, [put("d")]) == 2
        assert await state(store) == {"b": "x", "d": "x"}


async def test_a_second_call_in_one_transaction_is_refused(
    server: Server, schema: str, store_url: str
) -> None:
    async with open_store(store_url) as store:
        with connect(server, schema) as connection:
            record(connection, [put("a")])
            with pytest.raises(ValueError, match="called before in this transaction"):
                record(connection, [put("b")])
            connection.commit()
            record(connection, [put("c")])
            connection.commit()
            with connection.transaction(), connection.transaction():
                record(connection, [put("d")])
                with pytest.raises(ValueError, match="called before"), connection.transaction():
                    record(connection, [put("e")])
        assert await state(store) == {"a": "x", "c": "x", "d": "x"}


async def test_a_connection_without_a_transaction_is_refused(
    server: Server, schema: str, store_url: str
) -> None:
    async with open_store(store_url) as store:
        with connect(server, schema, autocommit=True) as connection:
            with pytest.raises(ValueError, match="no transaction"):
                record(connection, [put("a")])
            with connection.transaction():
                record(connection, [put("b")])
        assert await state(store) == {"b": "x"}


async def test_what_is_expected_holds_or_nothing_is_written(
    server: Server, schema: str, store_url: str
) -> None:
    name = Name("jobs", "a")
    async with open_store(store_url) as store:
        first = await store.commit([put("a", 1), Put("jobs", "run", 1, final=True)])
        with connect(server, schema) as connection:
            with pytest.raises(ConflictError) as raised:
                record(connection, [put("a", 2)], expect={name: 0})
            assert (raised.value.name, raised.value.expected, raised.value.actual) == (name, 0, first)
            with pytest.raises(ConflictError, match="is finished since commit 1"):
                record(connection, [put("run", 2)])
            connection.rollback()
            assert record(connection, [Delete("jobs", "run"), put("a", 2)], expect={name: first}) == 2
        assert await state(store) == {"a": 2}


async def test_misuse_is_refused_before_anything_is_asked(
    server: Server, schema: str, store_url: str
) -> None:
    async with open_store(store_url):
        with connect(server, schema) as connection:
            for operations, error in (
                ([], ValueError),
                (["a"], TypeError),
                ([put("a", float("nan"))], ValueError),
                ([put("k" * 1000)], LimitExceededError),
            ):
                with pytest.raises(error):
                    record(connection, operations)  # type: ignore[arg-type]
            assert connection.info.transaction_status == psycopg.pq.TransactionStatus.IDLE


@pytest.mark.parametrize(
    "level", [psycopg.IsolationLevel.REPEATABLE_READ, psycopg.IsolationLevel.SERIALIZABLE]
)
async def test_in_a_stricter_level_who_was_overtaken_repeats(
    level: psycopg.IsolationLevel, server: Server, schema: str, store_url: str
) -> None:
    async with open_store(store_url) as store:
        with connect(server, schema) as connection:
            connection.isolation_level = level
            connection.execute("SELECT count(*) FROM orders")
            await store.commit([put("a", 1)])
            with pytest.raises(ConflictError, match="repeat"):
                record(connection, [put("b", 1)])
            connection.rollback()
            assert record(connection, [put("b", 1)]) == 2
        assert await state(store) == {"a": 1, "b": 1}


async def test_the_schema_can_be_named(server: Server, schema: str, store_url: str) -> None:
    async with open_store(store_url) as store:
        with server.connect() as connection:
            assert record(connection, [put("a")], schema=schema) == 1
        assert await state(store) == {"a": "x"}


@pytest.mark.parametrize("makes", [create_tables, None], ids=["create_tables", "schema_sql"])
async def test_the_tables_can_be_made_by_the_application(
    makes: Callable[..., None] | None, server: Server, schema: str, store_url: str
) -> None:
    with connect(server, schema) as connection:
        for _ in range(2):
            if makes is not None:
                makes(connection)
            else:
                connection.execute(schema_sql().encode())
        record(connection, [put("a")])
    with server.connect() as connection:
        create_tables(connection, schema=f'{schema} "odd" 100%')
        record(connection, [put("b")], schema=f'{schema} "odd" 100%')
    async with open_store(store_url) as store:
        assert await state(store) == {"a": "x"}
    async with open_store(f"{store_url}%20%22odd%22%20100%25") as store:
        assert await state(store) == {"b": "x"}


@pytest.mark.parametrize("anyio_backend", ASYNCIO)
async def test_an_asynchronous_connection(server: Server, schema: str, store_url: str) -> None:
    async with (
        open_store(store_url) as store,
        await psycopg.AsyncConnection.connect(server.url()) as connection,
    ):
        assert await arecord(connection, [put("a", 1)], schema=schema) == 1
        with pytest.raises(ValueError, match="called before"):
            await arecord(connection, [put("a", 1)], schema=schema)
        await connection.commit()
        with pytest.raises(ConflictError):
            await arecord(connection, [put("a", 1)], expect={Name("jobs", "a"): 0}, schema=schema)
        await connection.rollback()
        assert await state(store) == {"a": 1}


@pytest.mark.slow
async def test_crossing_names_of_many_writers_are_no_deadlock(
    server: Server, schema: str, store_url: str
) -> None:
    """Applications with locks of their own, and stores, on the same names in every order."""
    rounds, errors = 40, list[Exception]()

    def write(number: int) -> None:
        try:
            with connect(server, schema) as connection:
                for n in range(rounds):
                    keys = [f"{(number * 7 + n * k) % 5}" for k in range(1, 4)]
                    operations: list[Operation] = [put(key, n) for key in keys]
                    order(connection, number * rounds + n)
                    record(connection, [*operations, Delete("jobs", f"{n % 3}")], expect={})
                    connection.commit()
        except (psycopg.Error, StoreError) as error:
            errors.append(error)

    async def commit(store: Store, number: int) -> None:
        for n in range(rounds):
            await store.commit([put(f"{(number + n * k) % 5}", n) for k in range(3, 0, -1)])

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    async with open_store(store_url) as store, open_store(store_url) as other:
        for thread in threads:
            thread.start()
        with anyio.fail_after(3 * PATIENCE):
            async with anyio.create_task_group() as tasks:
                for number in range(4):
                    tasks.start_soon(commit, (store, other)[number % 2], number)
        for thread in threads:
            await anyio.to_thread.run_sync(thread.join)
        assert errors == []
        assert (await store.head()).index == 8 * rounds
    assert server.sql(f"SELECT count(*) FROM {schema}.orders") == [(4 * rounds,)]
