"""Counts connections to SQLite."""

import sqlite3
import threading
from typing import Any

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
