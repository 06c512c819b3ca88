"""A store in PostgreSQL for the tests of a store's publisher."""

from contextlib import AbstractAsyncContextManager
from itertools import count

from stores.houses import House
from stores.postgresql.copies import back_up, restore
from stores.postgresql.server import Server
from typing_extensions import override

from trio_stream.stores import Store, open_store


class PostgreSQLHouse(House):
    is_noticed = False

    def __init__(self, server: Server) -> None:
        self._server = server
        self._schema = server.new_schema()
        self._copies = count()
        server.sql(f"CREATE SCHEMA {self._schema}")

    @override
    def open(self) -> AbstractAsyncContextManager[Store]:
        return open_store(self._server.url(schema=self._schema))

    @override
    def copy(self) -> str:
        copy = f"{self._schema}_copy_{next(self._copies)}"
        back_up(self._server, self._schema, copy)
        return copy

    @override
    def put_back(self, copy: object) -> None:
        assert isinstance(copy, str)
        restore(self._server, self._schema, copy)
