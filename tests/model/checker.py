"""Judges what one subscription returns, event by event, with what users check their traces with, and a bit more.

The model knows beforehand how a stream must begin, and what the client holds that comes back.
"""

# ruff: noqa: SLF001 - the model may know private names

import enum
from typing import Any, Generic, Literal

from typing_extensions import TypeVar

from trio_stream import Event
from trio_stream.testing import Model, PromiseBroken, State
from trio_stream.testing._trace import _Trace

P = TypeVar("P", default=Any)

Begins = Literal["fresh", "resume", "stale"]


class Phase(enum.Enum):
    """Where a trace is."""

    BEGIN = "begin"
    SNAPSHOT = "snapshot"
    LIVE = "live"


class Trace(Generic[P]):
    """Takes the events one by one.

    `begins`: what the request is.
    `start`: the index before which there is no state.
    `held`: what a client that resumes holds.
    """

    def __init__(self, model: Model[P], begins: Begins, *, start: int = 0, held: State | None = None) -> None:
        self.model = model
        self.begins = begins
        self.count = 0
        self._start = start
        self._trace = _Trace(model)
        if begins == "resume":
            self._trace._is_begun = True
            self._trace._go_live(model.request.index)
            if held is not None and held != self.state:
                raise PromiseBroken("D1", self.index, f"the client holds {held}, the store {self.state}")

    @property
    def phase(self) -> Phase:
        if self._trace._is_live:
            return Phase.LIVE
        return Phase.SNAPSHOT if self.count else Phase.BEGIN

    @property
    def index(self) -> int:
        """How far it has come; 0 inside a snapshot."""
        return self._trace._index if self._trace._is_live else 0

    @property
    def state(self) -> State:
        """What the events amount to while it is live, which was compared."""
        return self.model.state(self.index)

    def take(self, event: Event[P]) -> None:
        """Checks the next event; `PromiseBroken` if it must not come here."""
        if self.begins == "stale" and not self.count and not event.is_new_snapshot_to_follow:
            raise PromiseBroken("D5", event.index, "a stale resume begins with new-snapshot-to-follow")
        if event.is_end_of_snapshot and event.index < self._start:
            raise PromiseBroken("D1", event.index, f"a snapshot from before {self._start}")
        self._trace.take(event)
        self.count += 1

    def missing(self, until: int) -> int | None:
        """The index of the next commit up to `until` that a complete trace would have; None if it is complete."""
        commit = self.model.after(self.index)
        return None if commit is None or commit[0].index > until else commit[0].index
