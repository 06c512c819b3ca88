"""SQLite connections that tests look into: how many there are, what is executed on them, what they fail at."""

import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from typing_extensions import override

CONNECT = sqlite3.connect


class Connections:
    """Those that `connect` has made."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.made = 0
        self.open = 0
        self.peak = 0

    def connect(self, *arguments: Any, **options: Any) -> sqlite3.Connection:
        with self._lock:
            self.made += 1
            self.open += 1
            self.peak = max(self.peak, self.open)
        return CONNECT(*arguments, **options, factory=self._counted())

    def _counted(self) -> type[sqlite3.Connection]:
        outer = self

        class Counted(sqlite3.Connection):
            @override
            def close(self) -> None:
                super().close()
                with outer._lock:
                    outer.open -= 1

        return Counted


class Tap:
    """Sees each statement before it is executed, and may raise instead."""

    def __init__(self) -> None:
        self.statements: list[str] = []
        self.fail: Callable[[str, tuple[Any, ...]], None] = lambda _sql, _parameters: None

    def connect(self, *arguments: Any, **options: Any) -> sqlite3.Connection:
        return CONNECT(*arguments, **options, factory=self._factory())

    def _factory(self) -> type[sqlite3.Connection]:
        outer = self

        class Tapped(sqlite3.Connection):
            @override
            def execute(self, sql: str, parameters: Any = (), /) -> sqlite3.Cursor:
                outer.statements.append(sql)
                outer.fail(sql, parameters)
                return super().execute(sql, parameters)

            @override
            def executemany(self, sql: str, parameters: Any, /) -> sqlite3.Cursor:
                outer.statements.append(sql)
                for each in parameters:
                    outer.fail(sql, each)
                return super().executemany(sql, parameters)

        return Tapped

    def count(self, begin: str) -> int:
        """Statements that begin so."""
        return sum(statement.startswith(begin) for statement in self.statements)


@contextmanager
def tapped(monkeypatch: pytest.MonkeyPatch) -> Iterator[Tap]:
    """Connections that are made in the block are tapped."""
    tap = Tap()
    with monkeypatch.context() as patch:
        patch.setattr(sqlite3, "connect", tap.connect)
        yield tap


def keeping_cursors(cursors: list[sqlite3.Cursor]) -> Callable[..., sqlite3.Connection]:
    """A `sqlite3.connect` whose cursors live on, as they do on PyPy and on free-threaded builds."""

    class Keeping(sqlite3.Connection):
        @override
        def execute(self, sql: str, parameters: Any = (), /) -> sqlite3.Cursor:
            cursors.append(super().execute(sql, parameters))
            return cursors[-1]

        @override
        def executemany(self, sql: str, parameters: Any, /) -> sqlite3.Cursor:
            cursors.append(super().executemany(sql, parameters))
            return cursors[-1]

        @override
        def cursor(self, *arguments: Any) -> Any:
            cursors.append(super().cursor(*arguments))
            return cursors[-1]

    return lambda *arguments, **options: CONNECT(*arguments, **options, factory=Keeping)
