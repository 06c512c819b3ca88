"""`demo`: the main job on real input, from beginning to end."""

import os
import secrets
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from statistics import median
from tempfile import TemporaryDirectory
from typing import Final

import anyio
import anyio.lowlevel
import click

from trio_stream import EventPublisher, SubscribeRequest
from trio_stream.stores import (
    Delete,
    DescribedStore,
    Head,
    Put,
    Store,
    open_store_publisher,
    topic as topic_of,
)

from ._audit import Truth, View, replay
from ._demo_writer import Task
from ._display import Display, open_display
from ._followers import CLOSED, Follower, Leaver, Revoked
from ._kept import Kept
from ._opening import patient_opening_of
from ._run import Backend, open_tasks
from ._services import Services, load_services

_WRITERS: Final = 2  # processes
_GRACE: Final = 30.0  # seconds that subscribers have to receive the last commit
_MOST_IN_COMMIT: Final = 1000  # services of a long list


@dataclass
class _Outcome:
    acknowledged: int  # commits, by all who made some
    seconds: float
    problems: list[str]


class Demo:
    """One run; with a `url` in a topic of its own of that store, otherwise in a store of its own."""

    def __init__(self, file: str | None, *, seconds: float, backend: Backend, url: str | None) -> None:
        self._file = file
        self._seconds = seconds
        self._backend = backend
        self._url = url
        self._topic = "services" if url is None else f"demo-{secrets.token_hex(4)}"

    async def run(self) -> None:
        """A `click.ClickException` if a subscriber had anything else than the store."""
        services = load_services(self._file)
        with nullcontext() if self._url else TemporaryDirectory(prefix="trio-stream-") as folder:
            url = self._url or f"sqlite:{folder}/demo.db"
            async with patient_opening_of(url) as store:
                assert isinstance(store, DescribedStore)  # as all are that a URL can name
                status = await store.status()
                click.echo(
                    f"{len(services.entries)} services of {services.source} in {status.engine} {status.place}, "
                    f"topic {self._topic}; "
                    f"{_WRITERS} processes change them for {self._seconds:g} s ({self._backend})."
                )
                before = status.head
                try:
                    commits = await self._load(store, services)
                    followers, outcome = await self._follow(store, url, services)
                    outcome.acknowledged += commits
                    await self._judge(store, before, followers, outcome)
                finally:
                    if self._url:
                        with anyio.move_on_after(_GRACE, shield=True):
                            await self._remove(store)

    async def _load(self, store: Store, services: Services) -> int:
        puts = [Put(self._topic, key, value) for key, value in services.entries.items()]
        starts = range(0, len(puts), _MOST_IN_COMMIT)
        for start in starts:
            await store.commit(puts[start : start + _MOST_IN_COMMIT])
        await anyio.lowlevel.checkpoint()
        return len(starts)

    async def _follow(
        self, store: Store, url: str, services: Services
    ) -> tuple[Sequence[Follower], _Outcome]:
        key = _followed(services)
        outcome = _Outcome(0, 0, [])
        with open_display() as display:
            async with open_store_publisher(store, [self._topic]) as publisher, open_tasks() as tasks:
                followers, revoke = self._followers(publisher, key, display)
                for follower in followers:
                    tasks.start_soon(follower.follow)
                tasks.start_soon(self._show, display, followers)
                tasks.start_soon(self._halfway, revoke)
                started = anyio.current_time()
                await self._run_writers(url, key, outcome)
                outcome.seconds = anyio.current_time() - started
                await store.commit([Put(self._topic, key, {"status": CLOSED})])
                outcome.acknowledged += 1
                with anyio.move_on_after(_GRACE):
                    await _all_done(followers)
            display.show(followers)
        return followers, outcome

    def _followers(
        self, publisher: EventPublisher, key: str, display: Display
    ) -> tuple[Sequence[Follower], Callable[[], None]]:
        everything = SubscribeRequest(topic_of(self._topic))
        one = SubscribeRequest(topic_of(self._topic), key)
        guarded = SubscribeRequest(topic_of(self._topic), token="token-1")
        leaver = Leaver("comes and goes", publisher, everything, last=key, note=display.note)
        leaver.pace = self._seconds / 10
        revoked = Revoked("token revoked", publisher, guarded, last=key, note=display.note)
        revoked.pause = self._seconds / 30
        revoked.less = View(suffix=f"/{key.rpartition('/')[2]}")
        return [
            Follower("everything", publisher, everything, last=key, note=display.note),
            Kept("kept as a view", publisher, everything, last=key, note=display.note),
            Kept(f"only {key}", publisher, one, last=key, note=display.note),
            leaver,
            revoked,
        ], revoked.revoke

    async def _show(self, display: Display, followers: Sequence[Follower]) -> None:
        while True:
            await anyio.sleep(display.period)
            display.show(followers)

    async def _halfway(self, revoke: Callable[[], None]) -> None:
        await anyio.sleep(self._seconds / 2)
        revoke()

    async def _run_writers(self, url: str, key: str, outcome: _Outcome) -> None:
        deadline = time.time() + self._seconds
        reading, writing = os.pipe()  # the writers end when this end of it does, whatever happens to us
        try:
            async with anyio.create_task_group() as tasks:
                for seed in range(_WRITERS):
                    task = Task(self._topic, key, deadline, seed)
                    tasks.start_soon(self._run_writer, url, task, reading, outcome)
        finally:
            os.close(reading)
            os.close(writing)

    async def _run_writer(self, url: str, task: Task, stdin: int, outcome: _Outcome) -> None:
        """When this is cancelled, the process is killed and waited for."""
        command = [
            sys.executable,
            "-m",
            "trio_stream",
            "demo-writer",
            task.to_argument(),
            "--backend",
            self._backend,
        ]
        # The URL may have a password in it, and anybody can read the arguments of a process.
        environment = {**os.environ, "TRIO_STREAM_STORE": url}
        # In a session of its own: Ctrl-C on the terminal is for us alone.
        process = await anyio.run_process(
            command, stdin=stdin, check=False, start_new_session=True, env=environment
        )
        if process.returncode == 0:
            outcome.acknowledged += int(process.stdout)
        else:
            said = process.stderr.decode(errors="replace").strip()
            outcome.problems.append(
                f"writer {task.seed} failed: exit code {process.returncode} {said}".rstrip()
            )

    async def _judge(
        self, store: Store, before: Head, followers: Sequence[Follower], outcome: _Outcome
    ) -> None:
        """Compares what everybody had with what the log of the store says, and that with its state."""
        truths = {
            view: Truth(view) for view in {View(), *(view for each in followers for view in each.views)}
        }
        commits = await replay(store, self._topic, before.index, truths.values())
        problems = outcome.problems
        if commits != outcome.acknowledged:
            problems.append(f"{outcome.acknowledged} commits were acknowledged, {commits} are in the log")
        async with store.list(self._topic) as entries:
            if {key: entry.value async for key, entry in entries} != truths[View()].state.entries:
                problems.append("the state of the store is not what its log says")
        for follower in followers:
            wrong = [*follower.problems, *_check(follower, truths)]
            problems += [f"{follower.name}: {what}" for what in wrong]
            points = sum(len(segment.points) for segment in follower.segments)
            click.echo(
                f"{'WRONG' if wrong else 'right':<7}{follower.name:<16} index {follower.index}, "
                f"keys {len(follower.state.entries)}; compared there, and {points - 1} times on the way"
            )
        received = sum(follower.changes for follower in followers)
        click.echo(
            f"{commits} commits in {outcome.seconds:.1f} s by {_WRITERS} processes: {commits / outcome.seconds:.0f} a "
            f"second, and {received / outcome.seconds:.0f} received"
        )
        if delays := followers[0].delays:
            click.echo(f"{median(delays) * 1000:.1f} ms from one process to the other (median)")
        if problems:
            raise click.ClickException(
                "\n  ".join(["what was received is not what was committed:", *problems])
            )
        click.echo("All agree.")

    async def _remove(self, store: Store) -> None:
        async with store.list(self._topic) as entries:
            deletes = [Delete(self._topic, key) async for key, _ in entries]
        if deletes:
            await store.commit(deletes)


async def _all_done(followers: Sequence[Follower]) -> None:
    for follower in followers:
        await follower.done.wait()
    await anyio.lowlevel.checkpoint()


def _followed(services: Services) -> str:
    """The service that is changed more often than others, and followed by itself."""
    return next(
        (key for key in ("http/tcp", "ssh/tcp") if key in services.entries), next(iter(services.entries))
    )


def _check(follower: Follower, truths: Mapping[View, Truth]) -> Iterator[str]:
    for segment in follower.segments:
        yield from truths[segment.view].check(segment)
    truth = truths[follower.view]
    if not follower.done.is_set():
        yield f"got no further than index {follower.index} of {truth.points[-1].index}"
    elif follower.state.entries != truth.state.entries:
        yield f"another state than the store's at index {follower.index}"
