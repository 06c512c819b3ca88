"""Answers that grow word by word: readers who come late, runs that finish, that fail, and one that is lost."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import trio
from trio.testing import MockClock

from trio_stream import (
    Event,
    EventPublisher,
    SnapshotAppender,
    Source,
    SubscribeRequest,
    SubscriptionState,
    Topic,
    open_publisher,
)


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a run's output; the last one says how the run ended."""

    subject: str  # the run and its attempt: "answer/1"
    text: str
    outcome: str = ""  # "done", "failed" or "lost", in the last piece


RUNS = Topic[Piece]("runs")


class Runs:
    """A dict has the pieces of each run, with their indexes. The publisher counts the commits."""

    def __init__(self, publisher: EventPublisher) -> None:
        self._publisher = publisher
        self._pieces: dict[str, list[Event[Piece]]] = {}
        publisher.register_handler(RUNS, Source(self.snapshot, finishes=True))

    def add(self, run: str, text: str) -> None:
        self._publish(Piece(run, text))

    def end(self, run: str, outcome: str) -> None:
        """The last piece and the end of the subject are one commit."""
        self._publish(Piece(run, "", outcome))

    def _publish(self, piece: Piece) -> None:
        event = Event(RUNS, self._publisher.next_index, piece)
        self._pieces.setdefault(piece.subject, []).append(event)
        self._publisher.publish([event], finish=[(RUNS, piece.subject)] if piece.outcome else [])

    def is_ended(self, run: str) -> bool:
        return bool(self._pieces[run][-1].payloads[0].outcome)

    @contextmanager
    def producer(self, run: str) -> Iterator[None]:
        """Ends the run with the block, however that ends; `publish` does not wait, so a cancel cannot stop it."""
        outcome = "failed"
        try:
            yield
            outcome = "done"
        finally:
            if not self.is_ended(run):
                self.end(run, outcome)

    async def snapshot(self, request: SubscribeRequest[Piece], snapshot: SnapshotAppender[Piece]) -> int:
        # The state, its index and whether it is ended are read with no await in between.
        index = self._publisher.index
        runs = [run for run in self._pieces if request.covers(RUNS, run)]
        events = [event for run in runs for event in self._pieces[run]]
        is_ended = request.key in runs and self.is_ended(request.key)
        for event in events:
            await snapshot.append([event])
        if is_ended:
            snapshot.finish()
        return index


async def answer(runs: Runs, run: str, words: Iterable[str]) -> None:
    with runs.producer(run):
        for word in words:
            runs.add(run, word)
            await trio.sleep(1)  # a language model thinks


async def read(publisher: EventPublisher, who: str, run: str) -> None:
    pieces: list[Piece] = []
    async with publisher.subscribe(SubscribeRequest(RUNS, run)) as subscription:
        async for event in subscription:
            pieces += event.payloads
            if event.is_end_of_snapshot:
                print(f"{who} begins with {[piece.text for piece in pieces]}")
        assert subscription.state is SubscriptionState.FINISHED
    print(f"{who} has {' '.join(piece.text for piece in pieces if piece.text)!r}: {pieces[-1].outcome}")


async def give_up_the_silent(publisher: EventPublisher, runs: Runs, run: str, patience: float) -> None:
    """Ends a run from which nothing has come for so many seconds."""
    async with publisher.subscribe(SubscribeRequest(RUNS, run)) as subscription:
        while not runs.is_ended(run):
            with trio.move_on_after(patience) as waiting:
                await subscription.receive()
            if waiting.cancelled_caught and not runs.is_ended(run):
                runs.end(run, "lost")


async def main() -> None:
    async with open_publisher() as publisher, trio.open_nursery() as nursery:
        runs = Runs(publisher)
        print("-- a run that finishes")
        nursery.start_soon(answer, runs, "answer/1", ["Nothing", "lost,", "nothing", "twice."])
        await trio.sleep(1.5)
        await read(publisher, "late", "answer/1")
        await read(publisher, "afterwards", "answer/1")

        print("-- a run that fails")
        with trio.move_on_after(1.5):  # as if somebody had cancelled it
            await answer(runs, "answer/2", ["Nothing", "lost,"])
        await read(publisher, "afterwards", "answer/2")

        print("-- a run whose producer is gone, and says nothing")
        runs.add("answer/3", "Nothing")
        nursery.start_soon(give_up_the_silent, publisher, runs, "answer/3", 60)
        await read(publisher, "waiting", "answer/3")


trio.run(main, clock=MockClock(autojump_threshold=0))  # seconds that nobody has to wait for
