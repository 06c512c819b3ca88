"""Where a store is that faults are done to, on each engine."""

import random
import shutil
import time
from abc import abstractmethod
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from itertools import count
from pathlib import Path
from typing import Any

import anyio.to_thread
from stores.houses import House, SQLiteHouse
from stores.postgresql.copies import TABLES, back_up, restore, restore_in
from stores.postgresql.server import Server
from stores.storehouse import PATIENCE, open_at, sql
from typing_extensions import override

from trio_stream.stores import Store, open_store
from trio_stream.stores.sqlite import restore_sqlite_store


class Place(House):
    """One store, and a table of an application beside it."""

    engine: str

    @property
    @abstractmethod
    def url(self) -> str:
        """As other processes open it."""

    @property
    @abstractmethod
    def application(self) -> Sequence[str]:
        """What `application.py` is told of it."""

    @abstractmethod
    def make_orders(self) -> None:
        """Makes the table of the application, in a store that is there."""

    @abstractmethod
    def orders(self) -> list[tuple[str, int]]:
        """Its rows, in order."""

    @abstractmethod
    async def replace(self, copy: object, generator: random.Random) -> bool:
        """As `put_back`, while others have the store open; whether somebody who knows nothing may open it then."""

    def check(self) -> None:
        """Nothing is damaged, as far as the engine itself can tell."""


class SQLitePlace(SQLiteHouse, Place):
    engine = "SQLite"

    @property
    @override
    def url(self) -> str:
        return f"sqlite:{self.path}"

    @property
    @override
    def application(self) -> Sequence[str]:
        return "sqlite", str(self.path)

    @override
    def open(self) -> AbstractAsyncContextManager[Store]:
        return open_at(self.path, busy_timeout=PATIENCE)

    @override
    def make_orders(self) -> None:
        sql(self.path, "CREATE TABLE orders (task TEXT, number INTEGER)")

    @override
    def orders(self) -> list[tuple[str, int]]:
        return sql(self.path, "SELECT task, number FROM orders ORDER BY 1, 2")

    @override
    async def replace(self, copy: object, generator: random.Random) -> bool:
        """By our own means, or by a rename: then the `-wal` of the old file lies beside, until somebody sees that."""
        assert isinstance(copy, Path)
        if generator.random() < 0.5:
            await restore_sqlite_store(str(copy), str(self.path), busy_timeout=PATIENCE)
            return True
        self.put_back(copy)
        return False

    @override
    def check(self) -> None:
        assert sql(self.path, "PRAGMA integrity_check") == [("ok",)]


class PostgreSQLPlace(Place):
    engine = "PostgreSQL"
    is_noticed = True

    def __init__(self, server: Server) -> None:
        self.server = server
        self.schema = server.new_schema()
        self._copies = count()

    @property
    @override
    def url(self) -> str:
        return self.server.url(schema=self.schema)

    @property
    @override
    def application(self) -> Sequence[str]:
        return "postgresql", self.server.url(), self.schema

    @override
    def open(self) -> AbstractAsyncContextManager[Store]:
        return open_store(self.url)

    @override
    def make_orders(self) -> None:
        self.server.sql(f'CREATE TABLE {self.schema}.orders (task TEXT COLLATE "C", number INTEGER)')

    @override
    def orders(self) -> list[tuple[str, int]]:
        found: list[Any] = self.server.sql(f"SELECT task, number FROM {self.schema}.orders ORDER BY 1, 2")
        return found

    @override
    def copy(self) -> object:
        copy = f"{self.schema}_copy_{next(self._copies)}"
        back_up(self.server, self.schema, copy)
        return copy

    @override
    def put_back(self, copy: object) -> None:
        restore(self.server, self.schema, str(copy))

    def exchange(self, copy: object) -> str:
        """As `put_back`; what is given up goes to a schema of its own, whole, whoever commits meanwhile."""
        archive = f"{self.schema}_archive_{next(self._copies)}"
        with self.server.connect() as connection:
            connection.execute(f"SELECT FROM {self.schema}.ts_head FOR UPDATE".encode())
            connection.execute(f"CREATE SCHEMA {archive}".encode())
            for table in TABLES:
                connection.execute(f"CREATE TABLE {archive}.{table} AS TABLE {self.schema}.{table}".encode())
            restore_in(connection, self.schema, str(copy))
        return archive

    @override
    async def replace(self, copy: object, generator: random.Random) -> bool:
        await anyio.to_thread.run_sync(self.put_back, copy)
        return True


class Pair(PostgreSQLPlace):
    """A primary and a hot standby without which no commit is acknowledged; they change their parts."""

    def __init__(self) -> None:
        self._standby = Server()
        try:
            primary = Server()
        except BaseException:
            self._standby.remove()
            raise
        self._both = primary, self._standby
        super().__init__(primary)

    def start(self) -> None:
        self.server.create()
        self._start(self.server)
        self.stand_by()

    def promote(self) -> None:
        """Ends the primary as a power cut would; then the standby is one."""
        self.server.kill()
        self._standby.promote()
        self.server, self._standby = self._standby, self.server

    def stand_by(self) -> None:
        """Makes the other one, which does not run, a standby."""
        shutil.rmtree(self._standby.data, ignore_errors=True)
        self._standby.follow(self.server)
        self._start(self._standby)

    def remove(self) -> None:
        for each in self._both:
            each.remove()

    @property
    @override
    def url(self) -> str:
        hosts = ",".join(str(each.directory) for each in self._both)
        ports = ",".join(str(each.port) for each in self._both)
        query = f"host={hosts}&port={ports}&target_session_attrs=read-write&schema={self.schema}"
        return f"postgresql://postgres@/postgres?{query}"

    def _start(self, server: Server) -> None:
        server.start(
            synchronous_standby_names="*",
            synchronous_commit="remote_apply",
            wal_retrieve_retry_interval="100ms",
        )


class LossyPair(Pair):
    """The same, but the standby may lack commits: whoever promotes it puts an older copy in the store's place."""

    @override
    def copy(self) -> object:
        """From here on the standby is not told of anything."""
        ((upto,),) = self.server.sql("SELECT pg_current_wal_lsn()::text")
        self._until(f"SELECT pg_last_wal_replay_lsn() >= '{upto}'")
        self._standby.sql("ALTER SYSTEM SET primary_conninfo = ''", "SELECT pg_reload_conf()")
        self._until("SELECT count(*) = 0 FROM pg_stat_wal_receiver")
        return None

    @override
    def put_back(self, copy: object) -> None:
        self.promote()
        self.stand_by()

    def _until(self, condition: str) -> None:
        while self._standby.sql(condition) != [(True,)]:
            time.sleep(0.01)

    @override
    def _start(self, server: Server) -> None:
        server.start()
