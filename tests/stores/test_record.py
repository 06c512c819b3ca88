"""Commits in a transaction of the application's own: its rows and the events are there together, or never."""

import json
import random
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from stores.first_edition import write_first_edition
from stores.storehouse import commit_each, open_at, put, python, sql, state, take

from trio_stream.stores import (
    ConflictError,
    Delete,
    LimitExceededError,
    Name,
    Put,
    Revoke,
    StoreError,
    token_digest,
)
from trio_stream.stores.sqlite import (
    backup_sqlite_store,
    create_tables,
    record,
    restore_sqlite_store,
    schema_sql,
)

pytestmark = pytest.mark.anyio


@pytest.fixture
def connection(path: Path) -> Iterator[sqlite3.Connection]:
    """To a file of the application's own."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE runs (id INTEGER PRIMARY KEY, name TEXT)")
        create_tables(connection)
        connection.commit()
        yield connection


def add_run(connection: sqlite3.Connection, name: str) -> None:
    connection.execute("INSERT INTO runs (name) VALUES (?)", (name,))


def runs(path: Path) -> list[str]:
    return [name for (name,) in sql(path, "SELECT name FROM runs ORDER BY id")]


async def test_rows_and_events_are_there_together(connection: sqlite3.Connection, path: Path) -> None:
    async with open_at(path) as store:
        with connection:
            add_run(connection, "a")
            assert record(connection, [put("a", 1)]) == 1
            assert await state(store) == {}
        assert await state(store) == {"a": 1}
        assert await store.commit([put("a", 2)]) == 2
        with connection:
            add_run(connection, "b")
            index = record(connection, [put("a", 3)])
        assert index.cursor == (await store.head()).cursor
        async with store.changes(1) as commits:
            found = [(await anext(commits)).operations[0] for _ in range(2)]
        assert [change.previous for change in found] == [1, 2]
    assert runs(path) == ["a", "b"]


async def test_a_transaction_that_is_rolled_back_gives_the_index_back(
    connection: sqlite3.Connection, path: Path
) -> None:
    async with open_at(path) as store:
        add_run(connection, "a")
        assert record(connection, [put("a"), Revoke("x")]) == 1
        connection.rollback()
        assert (await store.head()).index == 0
        assert dict((await store.revocations()).newest) == {}
        assert await store.commit([put("b")]) == 1
    assert runs(path) == []


async def test_who_follows_the_store_is_woken(connection: sqlite3.Connection, path: Path) -> None:
    async with open_at(path) as store, store.changes(0) as commits:
        with connection:
            add_run(connection, "a")
            record(connection, [put("a")])
        assert await take(commits, 1) == [1]


async def test_it_does_all_that_a_commit_does(connection: sqlite3.Connection, path: Path) -> None:
    with connection:
        add_run(connection, "a")
        record(connection, [Put("jobs", "a", 1, final=True), put("b", 1), put("b", 2), Delete("jobs", "c")])
    with connection:
        add_run(connection, "b")
        record(connection, [Revoke("x"), Delete("jobs", "b")], expect={Name("jobs", "b"): 1})
    async with open_at(path) as store:
        salt = (await store.revocations()).salt
        async with store.changes(0) as commits:
            first, second = [await anext(commits) for _ in range(2)]
        assert first.operations == (Put("jobs", "a", 1, final=True), put("b", 2))
        assert second.operations == (Delete("jobs", "b"),)
        assert second.operations[0].previous == 2
        assert second.revoked == (token_digest("x", salt),)


async def test_an_index_that_was_read_is_expected(connection: sqlite3.Connection, path: Path) -> None:
    async with open_at(path) as store:
        await store.commit([put("a")])
        entry = await store.get("jobs", "a")
    assert entry is not None
    with connection:
        add_run(connection, "a")
        record(connection, [put("a", 2)], expect={Name("jobs", "a"): entry.index})
    sql(path, "UPDATE ts_head SET epoch = 'another'", "UPDATE ts_state SET idx = 1")
    add_run(connection, "b")
    with pytest.raises(ConflictError):
        record(connection, [put("a", 2)], expect={Name("jobs", "a"): entry.index})


def test_what_is_refused_has_changed_nothing(connection: sqlite3.Connection, path: Path) -> None:
    """And the transaction goes on."""
    with connection:
        add_run(connection, "a")
        with pytest.raises(ConflictError):
            record(connection, [put("a")], expect={Name("jobs", "b"): 1})
        with pytest.raises(LimitExceededError, match=str(path)):
            record(connection, [Put("jobs", "k" * 70_000, 1)])
        with pytest.raises(ValueError, match="not JSON"):
            record(connection, [put("a", {1, 2})])  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="without operations"):
            record(connection, [])
        assert record(connection, [put("a")]) == 1
    assert runs(path) == ["a"]


def test_a_second_call_in_one_transaction_is_refused(connection: sqlite3.Connection, path: Path) -> None:
    for index in (1, 2):
        with connection:
            add_run(connection, "a")
            assert record(connection, [put("a")]) == index
            for _ in range(2):
                with pytest.raises(ValueError, match="was called before in this transaction"):
                    record(connection, [put("b")])
    assert sql(path, "SELECT idx FROM ts_head") == [(2,)]
    assert sql(path, "SELECT key FROM ts_state") == [("a",)]


def test_a_transaction_that_was_rolled_back_was_another_one(connection: sqlite3.Connection) -> None:
    for _ in range(2):
        add_run(connection, "a")
        assert record(connection, [put("a")]) == 1
        connection.rollback()


def test_a_connection_without_a_transaction_is_refused(connection: sqlite3.Connection, path: Path) -> None:
    with pytest.raises(ValueError, match="in no transaction"):
        record(connection, [put("a")])
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        with pytest.raises(ValueError, match="in no transaction"):
            record(other, [put("a")])
        other.execute("BEGIN IMMEDIATE")
        assert record(other, [put("a")]) == 1
        other.execute("COMMIT")


def test_connections_may_give_rows_as_they_like(connection: sqlite3.Connection) -> None:
    connection.row_factory = sqlite3.Row
    connection.text_factory = bytes
    with connection:
        add_run(connection, "a")
        record(connection, [put("a", "é")])
    with connection:
        add_run(connection, "b")
        assert record(connection, [put("a", "é2")], expect={Name("jobs", "a"): 1}) == 2
    assert connection.row_factory is sqlite3.Row
    assert connection.text_factory is bytes


def test_a_file_without_the_tables_says_how_they_get_there(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE runs (id INTEGER PRIMARY KEY, name TEXT)")
        add_run(connection, "a")
        with pytest.raises(StoreError, match=f"{path}: there is no store in it; create_tables makes one"):
            record(connection, [put("a")])
        connection.rollback()


def test_a_file_of_the_first_edition_says_how_it_is_upgraded(path: Path) -> None:
    write_first_edition(path)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN")
        with pytest.raises(StoreError, match="upgraded by open_store"):
            record(connection, [put("a")])


def test_a_head_that_is_damaged(connection: sqlite3.Connection, path: Path) -> None:
    sql(path, "UPDATE ts_head SET epoch = x'00'")
    add_run(connection, "a")
    with pytest.raises(StoreError, match=f"{path}: damaged"):
        record(connection, [put("a")])
    connection.commit()
    sql(path, "UPDATE ts_head SET version = 'x'")
    add_run(connection, "b")
    with pytest.raises(StoreError, match=f"{path}: damaged"):
        record(connection, [put("a")])


async def test_tables_by_migration_are_those_of_create_tables(tmp_path: Path) -> None:
    for file in ("a.db", "b.db"):
        with closing(sqlite3.connect(tmp_path / file)) as connection:
            connection.execute("CREATE TABLE mine (x)")
            for _ in range(2):  # harmless to repeat
                if file == "a.db":
                    connection.executescript(schema_sql())
                else:
                    create_tables(connection)
        async with open_at(tmp_path / file) as store:
            assert await store.commit([put("a")]) == 1
    tables = [
        sql(tmp_path / file, "SELECT name, sql FROM sqlite_master ORDER BY name") for file in ("a.db", "b.db")
    ]
    assert tables[0] == tables[1]
    assert ("head",) not in [row[:1] for row in tables[0]]


def test_tables_are_made_in_the_transaction_that_runs(path: Path) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN")
        create_tables(connection)
        connection.execute("ROLLBACK")
        assert sql(path, "SELECT count(*) FROM sqlite_master") == [(0,)]


async def test_two_stores_have_two_epochs(tmp_path: Path) -> None:
    epochs = set()
    for file in ("a.db", "b.db"):
        with closing(sqlite3.connect(tmp_path / file)) as connection:
            create_tables(connection)
        async with open_at(tmp_path / file) as store:
            epochs.add((await store.head()).epoch)
    assert len(epochs) == 2


async def test_a_backup_has_the_tables_of_the_application_too(
    connection: sqlite3.Connection, path: Path, tmp_path: Path
) -> None:
    with connection:
        add_run(connection, "a")
        record(connection, [put("a")])
    target = tmp_path / "copy.db"
    await backup_sqlite_store(str(path), str(target))
    with connection:
        add_run(connection, "b")
        record(connection, [put("b")])
    await restore_sqlite_store(str(target), str(path))
    assert runs(path) == ["a"]
    async with open_at(path) as store:
        assert set(await state(store)) == {"a"}


async def test_a_restore_does_not_take_the_tables_of_an_application_away(
    connection: sqlite3.Connection, path: Path, tmp_path: Path
) -> None:
    with connection:
        add_run(connection, "a")
    other = tmp_path / "other.db"
    async with open_at(other) as store:
        await commit_each(store, "x")
    with pytest.raises(StoreError, match="tables of an application"):
        await restore_sqlite_store(str(other), str(path))
    assert runs(path) == ["a"]


APPLICATION = """
import itertools, sqlite3, sys
from trio_stream.stores import Put
from trio_stream.stores.sqlite import record

connection = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=30)
for n in itertools.count():
    connection.execute("BEGIN IMMEDIATE")
    name = f"{sys.argv[2]}-{n}"
    connection.execute("INSERT INTO runs (name) VALUES (?)", (name,))
    record(connection, [Put("jobs", name, n)])
    connection.execute("COMMIT")
    print(name, flush=True)
"""


def killed(process: "subprocess.Popen[str]") -> list[str]:
    """What it has acknowledged since it was asked last."""
    process.kill()
    with process:
        assert process.stdout is not None
        # What follows the last line end is half a line.
        return [line for line in process.stdout.read().split("\n")[:-1] if line]


def test_killed_at_any_moment_there_is_never_one_without_the_other(
    connection: sqlite3.Connection, path: Path
) -> None:
    connection.close()
    known: list[str] = []
    for life in range(3):
        process = python(APPLICATION, str(path), f"{life}", stdout=subprocess.PIPE)
        assert process.stdout is not None
        known += [process.stdout.readline().strip() for _ in range(random.randrange(1, 20))]
        known += killed(process)
    logged = [
        json.loads(operations)[0][3]
        for (operations,) in sql(path, "SELECT operations FROM ts_log ORDER BY idx")
    ]
    assert logged == runs(path)
    assert sorted(logged) == sorted(key for (key,) in sql(path, "SELECT key FROM ts_state"))
    assert set(known) <= set(logged)


def test_the_head_is_locked_from_then_on(connection: sqlite3.Connection, path: Path) -> None:
    add_run(connection, "a")
    record(connection, [put("a")])
    with closing(sqlite3.connect(path, timeout=0)) as other:
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            add_run(other, "b")
    connection.commit()


def test_another_writer_that_came_in_between_is_an_error_of_sqlite(
    connection: sqlite3.Connection, path: Path
) -> None:
    """The transaction has read what is no longer so."""
    connection.execute("PRAGMA journal_mode = WAL")
    connection.isolation_level = None
    connection.execute("BEGIN")
    connection.execute("SELECT * FROM runs").fetchall()
    sql(path, "INSERT INTO runs (name) VALUES ('other')")
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        record(connection, [put("a")])
    connection.execute("ROLLBACK")
    connection.execute("BEGIN")
    assert record(connection, [put("a")]) == 1
    connection.execute("COMMIT")


def test_a_file_whose_texts_are_not_in_utf_8_is_refused(path: Path) -> None:
    """SQLite would sort keys by other bytes there, and give commits as other bytes."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA encoding = 'UTF-16le'")
        connection.execute("CREATE TABLE runs (id INTEGER PRIMARY KEY, name TEXT)")
        connection.commit()
        with pytest.raises(StoreError, match=f"{path}.*UTF-16le: a store needs UTF-8"):
            create_tables(connection)
        connection.executescript(schema_sql())
        add_run(connection, "a")
        with pytest.raises(StoreError, match=f"{path}.*UTF-16le: a store needs UTF-8"):
            record(connection, [put("a")])


async def test_a_store_of_other_texts_is_not_opened(path: Path) -> None:
    sql(path, "PRAGMA encoding = 'UTF-16be'", *filter(str.strip, schema_sql().split(";")))
    with pytest.raises(StoreError, match="UTF-16be: a store needs UTF-8"):
        async with open_at(path):
            pass
