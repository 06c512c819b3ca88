"""What is wrong with a server is a typed error that names the store and the cause, and never a password."""

import traceback
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import pytest
from stores.postgresql.server import PASSWORD, QUOTED_PASSWORD, Server
from stores.storehouse import PATIENCE, put, state

from trio_stream.stores import LimitExceededError, Put, Store, StoreError, open_store

pytestmark = pytest.mark.anyio


async def refusal(url: str, **options: object) -> StoreError:
    """Why the store cannot be opened; nothing that is shown of it has the password."""
    with anyio.fail_after(PATIENCE), pytest.raises(StoreError) as raised:
        async with open_store(url, **options):
            pass
    shown = "".join(traceback.format_exception(raised.value)) + repr(raised.value)
    assert PASSWORD not in shown
    assert QUOTED_PASSWORD not in shown
    return raised.value


@asynccontextmanager
async def as_user(server: Server, url: str, *rights: str) -> AsyncIterator[Store]:
    """The store, opened by a user of its own with these rights only."""
    server.sql(
        "DO $$ BEGIN IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'guest') THEN CREATE ROLE guest LOGIN;"
        " END IF; END $$",
        *rights,
    )
    async with open_store(url.replace("postgres@", "guest@")) as store:
        yield store


def schema_of(url: str) -> str:
    return url.partition("schema=")[2]


async def test_no_server(server: Server) -> None:
    error = await refusal(server.tcp_url(port=1))
    assert "cannot be connected to" in str(error)
    assert "127.0.0.1:1" in str(error)


async def test_a_wrong_password(server: Server) -> None:
    error = await refusal(server.tcp_url(password="wr0ng"))
    assert "password authentication failed" in str(error)
    assert "wr0ng" not in "".join(traceback.format_exception(error))


async def test_no_such_database(server: Server) -> None:
    assert "does not exist" in str(await refusal(server.tcp_url("nowhere")))


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://me:{QUOTED_PASSWORD}@host/db?nonsense={QUOTED_PASSWORD}",
        f"postgresql://me:{QUOTED_PASSWORD}%zz@host/db",
        f"postgresql://me:{QUOTED_PASSWORD}@[host/db",
        f"postgresq://me:{QUOTED_PASSWORD}@host/db",
        f"postgresql:me:{QUOTED_PASSWORD}@host/db",
    ],
)
async def test_a_url_that_cannot_be_read_is_not_shown(url: str) -> None:
    with pytest.raises(ValueError) as raised:
        open_store(url)
    shown = "".join(traceback.format_exception(raised.value))
    assert PASSWORD not in shown
    assert QUOTED_PASSWORD not in shown


async def test_a_store_does_not_show_its_password(server: Server) -> None:
    async with open_store(f"{server.tcp_url()}?schema={server.new_schema()}") as store:
        assert PASSWORD not in f"{store!r} {store}"


async def test_a_server_that_is_too_old(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trio_stream.stores._postgresql_server.OLDEST", 99)
    assert "older than 99" in str(await refusal(url))


async def test_a_database_of_another_encoding(server: Server) -> None:
    server.sql(
        "DROP DATABASE IF EXISTS latin",
        "CREATE DATABASE latin TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'",
    )
    assert "LATIN1" in str(await refusal(server.url("latin")))


async def test_a_store_that_is_not_there_is_not_made_by_readers(server: Server, url: str) -> None:
    assert "it has no tables" in str(await refusal(url, read_only=True))
    assert server.sql(f"SELECT to_regnamespace('{schema_of(url)}')") == [(None,)]


async def test_tables_that_are_not_ours(server: Server, url: str) -> None:
    server.sql(f"CREATE SCHEMA {schema_of(url)}", f"CREATE TABLE {schema_of(url)}.ts_head (a integer)")
    assert "its tables are others" in str(await refusal(url))


async def test_a_newer_schema(server: Server, url: str) -> None:
    async with open_store(url):
        pass
    server.sql(f"UPDATE {schema_of(url)}.ts_head SET version = 99")
    assert "written by a newer trio_stream (schema 99" in str(await refusal(url))


async def test_a_head_that_is_gone(server: Server, url: str) -> None:
    async with open_store(url) as store:
        server.sql(f"DELETE FROM {schema_of(url)}.ts_head")
        for call in (store.head(), store.commit([put("a")])):
            with pytest.raises(StoreError, match="damaged: it has no head"):
                await call
    assert "damaged: it has no head" in str(await refusal(url))


async def test_no_right_to_make_the_tables(server: Server, url: str) -> None:
    with pytest.raises(StoreError, match="not permitted"):
        async with as_user(server, url):
            pass


async def test_no_right_to_a_table(server: Server, url: str) -> None:
    async with open_store(url) as store:
        await store.commit([put("a")])
    schema = schema_of(url)
    rights = (
        f"GRANT USAGE ON SCHEMA {schema} TO guest",
        f"GRANT SELECT ON ALL TABLES IN SCHEMA {schema} TO guest",
    )
    async with as_user(server, url, *rights) as store:
        assert await state(store) == {"a": "x"}
        with pytest.raises(StoreError, match=r"not permitted .permission denied for table ts_head"):
            await store.commit([put("b")])
        with pytest.raises(StoreError, match="not permitted"):
            await store.compact(1)
        server.sql(f"REVOKE SELECT ON {schema}.ts_state FROM guest")
        with pytest.raises(StoreError, match=r"not permitted .permission denied for table ts_state"):
            await store.get("jobs", "a")


async def test_a_server_that_only_reads(url: str) -> None:
    async with open_store(url) as store:
        await store.commit([put("a")])
    async with open_store(f"{url}&options=-cdefault_transaction_read_only%3Don") as store:
        assert await state(store) == {"a": "x"}
        for call in (store.commit([put("b")]), store.compact(1)):
            with pytest.raises(StoreError, match="read-only"):
                await call


async def test_opened_for_reading_only(url: str) -> None:
    async with open_store(url) as store:
        await store.commit([put("a")])
    async with open_store(url, read_only=True) as store:
        assert await state(store) == {"a": "x"}
        for call in (store.commit([put("b")]), store.compact(1)):
            with pytest.raises(StoreError, match="opened for reading only"):
                await call


async def test_a_full_disk_loses_the_commit_and_no_other(server: Server, url: str, store: Store) -> None:
    """As the server reports one: a disk is not filled here."""
    schema = schema_of(url)
    server.sql(
        f"CREATE FUNCTION {schema}.full() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN IF new.value LIKE '%much%' THEN RAISE 'could not extend file: %', new.value"
        " USING ERRCODE = '53100', DETAIL = new.value; END IF; RETURN new; END $$",
        f"CREATE TRIGGER full_disk BEFORE INSERT ON {schema}.ts_state"
        f" FOR EACH ROW EXECUTE FUNCTION {schema}.full()",
    )
    outcomes: dict[str, object] = {}

    async def commit(key: str, value: str) -> None:
        try:
            outcomes[key] = int(await store.commit([put(key, value)]))
        except StoreError as error:
            outcomes[key] = error

    async with anyio.create_task_group() as tasks:
        for key in ("a", "b", "c"):
            tasks.start_soon(commit, key, "much" if key == "b" else "x")
    assert sorted(str(each) for each in outcomes.values() if isinstance(each, int)) == ["1", "2"]
    assert "the server is out of disk space" in str(outcomes["b"])
    assert await state(store) == {"a": "x", "c": "x"}


@pytest.mark.parametrize(
    ("what", "operation"),
    [
        ("key", Put("jobs", "k" * 513, 1)),
        ("key", Put("t" * 513, "k", 1)),
        ("key", Put("jobs", "é" * 257, 1)),
        ("value", Put("jobs", "k", "v" * (16 << 20))),
    ],
)
async def test_what_is_beyond_a_limit_is_not_sent(what: str, operation: Put, store: Store) -> None:
    with pytest.raises(LimitExceededError) as raised:
        await store.commit([operation])
    assert raised.value.what == what
    assert (await store.head()).index == 0


async def test_what_is_at_the_limits_is_kept(store: Store) -> None:
    most = store.limits.key
    largest = Put("t" * most, "\U0010ffff" * (most // 4), "v" * (store.limits.value - 2), "n" * most)
    await store.commit([largest])
    entry = await store.get(*largest.name[:2], namespace=largest.namespace)
    assert entry is not None
    assert entry.value == largest.value


@pytest.mark.slow
async def test_too_many_operations_are_not_sent(store: Store) -> None:
    many = [put(f"{n}") for n in range(store.limits.operations + 1)]
    with pytest.raises(LimitExceededError, match="operations of 100001"):
        await store.commit(many)
    await store.commit(many[1:])
    assert (await store.head()).index == 1


async def test_a_server_that_hangs_is_not_waited_for_for_ever(own_server: Server) -> None:
    with anyio.fail_after(PATIENCE):
        async with open_store(own_server.url(), connect_timeout=2, statement_timeout=0.3) as store:
            await store.commit([put("a")])
            own_server.freeze()
            for call in (store.head(), state(store)):
                with pytest.raises(StoreError, match=r"no answer for 0\.3 s|cannot be connected to"):
                    await call
            own_server.thaw()
            assert await state(store) == {"a": "x"}
            assert (await store.commit([put("a")])) == 2


async def test_a_call_to_a_server_that_hangs_can_be_cancelled(own_server: Server) -> None:
    with anyio.fail_after(PATIENCE):
        async with open_store(own_server.url(), statement_timeout=10 * PATIENCE) as store:
            await store.commit([put("a")])
            own_server.freeze()
            for call in (store.head, store.topics, store.revocations):
                with anyio.move_on_after(0.1) as scope:
                    await call()
                assert scope.cancelled_caught
            own_server.thaw()
            assert (await store.head()).index == 1


async def test_a_transaction_that_keeps_the_store_locked_is_named(server: Server, url: str) -> None:
    with anyio.fail_after(PATIENCE):
        async with open_store(url, statement_timeout=0.3) as store:
            with server.connect() as connection:
                connection.execute(f"SELECT 1 FROM {schema_of(url)}.ts_head FOR UPDATE")
                with pytest.raises(StoreError, match="another transaction keeps the store locked"):
                    await store.commit([put("a")])
                assert await state(store) == {}
            assert await store.commit([put("a")]) == 1


async def test_psycopg_is_asked_for_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    for name in [
        name for name in sys.modules if name.startswith("trio_stream.stores.") and "postgresql" in name
    ]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(ImportError, match=r"trio-stream\[postgresql\]"):
        open_store("postgresql:///")
