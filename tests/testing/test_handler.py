"""`check_snapshot_handler`: right handlers pass, and what it says of handlers with one bug each."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from catalogue import HEALTH, JOBS, Catalogue, Health, apply, event

from trio_stream import Event, Framing, SnapshotAppender, SubscribeRequest
from trio_stream.testing import Model, PromiseBroken, check_snapshot_handler

pytestmark = pytest.mark.anyio

ALL = SubscribeRequest(HEALTH)
WEB = SubscribeRequest(HEALTH, "web")

Request = SubscribeRequest[Health]
Appender = SnapshotAppender[Health]
Handler = Callable[["Shop", Request, Appender], Awaitable[int]]


@dataclass
class Shop:
    """A store with a log of its commits, and a handler under test."""

    handler: Handler
    commits: list[list[Event[Health]]] = field(default_factory=list)
    store: Catalogue = field(default_factory=Catalogue)
    is_ready: bool = True
    lock: anyio.Lock = field(default_factory=anyio.Lock)

    def commit(self, *changes: tuple[str, str | None]) -> None:
        index = self.store.commit(*changes)
        self.commits.append([event(index, key, value) for key, value in changes])

    async def snapshot(self, request: Request, snapshot: Appender) -> int:
        return await self.handler(self, request, snapshot)

    async def commit_more(self) -> None:
        await anyio.lowlevel.checkpoint()
        self.commit(("web", "x"), ("db", f"{len(self.commits)}"), ("late", "x"))

    @asynccontextmanager
    async def unready(self) -> AsyncIterator[None]:
        self.is_ready = False
        yield
        self.is_ready = True

    def model(self, request: Request) -> Model[Health]:
        return Model(request=request, commits=self.commits, apply=apply)


async def check(handler: Handler, request: Request = ALL) -> None:
    shop = Shop(handler)
    shop.commit(("web", "a"), ("db", "a"))
    shop.commit(("mail", "b"))
    shop.commit(("web", "c"), ("mail", None))
    await check_snapshot_handler(
        shop.snapshot,
        request,
        model=shop.model(request),
        at_append=shop.commit_more,
        unready=shop.unready(),
    )


def rows(shop: Shop, request: Request) -> list[Event[Health]]:
    """The state, each with the index that it has had since."""
    state, modified = shop.store.state_at(shop.store.index, request), shop.store.modified
    return [event(modified[request.topic, subject], subject.key, value) for subject, value in state.items()]


async def right(shop: Shop, request: Request, snapshot: Appender) -> int:
    if not shop.is_ready:
        raise ConnectionError("not loaded yet")
    index = shop.store.index
    for row in rows(shop, request):
        await snapshot.append([row])
    return index


@pytest.mark.parametrize(
    "request_", [ALL, WEB, SubscribeRequest(HEALTH, "nobody")], ids=["all", "web", "nobody"]
)
async def test_a_right_handler_passes(request_: Request) -> None:
    await check(right, request_)


async def test_a_handler_of_an_empty_store_passes() -> None:
    shop = Shop(right)
    await check_snapshot_handler(shop.snapshot, ALL, model=shop.model(ALL))


async def test_a_handler_that_reads_under_a_lock_and_lets_it_go_passes() -> None:
    async def handler(shop: Shop, request: Request, snapshot: Appender) -> int:
        if not shop.is_ready:
            raise ConnectionError("not loaded yet")
        async with shop.lock:
            index, state = shop.store.index, shop.store.state_at(shop.store.index, request)
        for subject, value in state.items():
            await snapshot.append([event(index, subject.key, value)])
        return index

    await check(handler)


async def reads_its_index_later(shop: Shop, request: Request, snapshot: Appender) -> int:
    await right(shop, request, snapshot)
    return shop.store.index


async def reads_its_index_before(shop: Shop, request: Request, snapshot: Appender) -> int:
    index = shop.store.index
    for subject in shop.store.state_at(index, request):
        now = shop.store.state_at(shop.store.index, request)
        await snapshot.append([event(1, subject.key, now[subject])])
    return index


async def ignores_the_index(shop: Shop, request: Request, snapshot: Appender) -> int:
    await right(shop, request, snapshot)
    return 1


async def returns_a_text(shop: Shop, request: Request, snapshot: Appender) -> int:
    return str(await right(shop, request, snapshot))  # type: ignore[return-value]


async def returns_a_negative_index(shop: Shop, request: Request, snapshot: Appender) -> int:
    return -1


async def returns_0_for_a_state(shop: Shop, request: Request, snapshot: Appender) -> int:
    await right(shop, request, snapshot)
    return 0


async def appends_all_in_one_go(shop: Shop, request: Request, snapshot: Appender) -> int:
    index = shop.store.index
    await snapshot.append(rows(shop, request))
    return index


async def does_not_await(shop: Shop, request: Request, snapshot: Appender) -> int:
    index = shop.store.index
    for row in rows(shop, request):
        snapshot.append([row])  # type: ignore[unused-coroutine]
    return index


async def forgets_a_row(shop: Shop, request: Request, snapshot: Appender) -> int:
    index = shop.store.index
    for row in rows(shop, request)[1:]:
        await snapshot.append([row])
    return index


async def ignores_the_key(shop: Shop, request: Request, snapshot: Appender) -> int:
    return await right(shop, ALL, snapshot)


async def appends_no_subject(shop: Shop, request: Request, snapshot: Appender) -> int:
    wrong: Any = Event(HEALTH, 1, object())
    await snapshot.append([wrong])
    return await right(shop, request, snapshot)


async def appends_another_topic(shop: Shop, request: Request, snapshot: Appender) -> int:
    await snapshot.append([event(1, "web", topic=JOBS)])
    return await right(shop, request, snapshot)


async def appends_framing(shop: Shop, request: Request, snapshot: Appender) -> int:
    index = await right(shop, request, snapshot)
    await snapshot.append([Event(HEALTH, index, Framing.END_OF_SNAPSHOT)])
    return index


async def appends_payloads(shop: Shop, request: Request, snapshot: Appender) -> int:
    await snapshot.append([Health("web")])  # type: ignore[list-item]
    return 3


async def looks_at_the_token(shop: Shop, request: Request, snapshot: Appender) -> int:
    index = shop.store.index
    for row in rows(shop, request)[: 1 if request.token else None]:
        await snapshot.append([row])
    return index


async def resumes_by_itself(shop: Shop, request: Request, snapshot: Appender) -> int:
    index = shop.store.index
    for row in rows(shop, request):
        if row.index > request.index:
            await snapshot.append([row])
    return index


async def swallows_errors(shop: Shop, request: Request, snapshot: Appender) -> int:
    index = shop.store.index
    for row in rows(shop, request):
        try:
            await snapshot.append([row])
        except Exception:  # noqa: BLE001
            break
    return index


async def swallows_cancellation(shop: Shop, request: Request, snapshot: Appender) -> int:
    index = shop.store.index
    with suppress(anyio.get_cancelled_exc_class()):
        await right(shop, request, snapshot)
    return index


async def cannot_be_cancelled(shop: Shop, request: Request, snapshot: Appender) -> int:
    index = 0
    with anyio.CancelScope(shield=True):
        index = await right(shop, request, snapshot)
    return index  # noqa: RET504 - a scope may swallow


async def returns_nothing_when_it_is_not_ready(shop: Shop, request: Request, snapshot: Appender) -> int:
    return await right(shop, request, snapshot) if shop.is_ready else 3


BUGS: list[tuple[Any, Request, str]] = [
    (
        reads_its_index_later,
        ALL,
        r"state at index 5: the snapshot gives .*'web'.*'c'.*but the state is .*'late'",
    ),
    (reads_its_index_before, ALL, "state at index 3: the snapshot gives .* but the state is"),
    (ignores_the_index, ALL, "index at index 1: returned although the state has"),
    (returns_a_text, ALL, "index: returned '.*', not an integer"),
    (returns_a_negative_index, ALL, "index at index -1: is negative"),
    (returns_0_for_a_state, ALL, "index at index 0: 0 is for a store without a commit"),
    (appends_all_in_one_go, ALL, "append at index .: events of different indexes in one append: 3 and 1"),
    (does_not_await, ALL, "append at index 3: 2 appends, 0 of them awaited"),
    (forgets_a_row, ALL, "state at index 3: the snapshot gives"),
    (
        ignores_the_key,
        WEB,
        "append at index 1: 'default/default/db' where 'default/default/web' was asked for",
    ),
    (appends_no_subject, ALL, "append at index 1: a payload of type object: .*subject"),
    (appends_another_topic, ALL, "append at index 1: an event of another topic, 'jobs'"),
    (appends_framing, ALL, "append at index .*: a Framing payload"),
    (appends_payloads, ALL, "append at index 3: not an event: Health"),
    (looks_at_the_token, ALL, "state|request"),
    (resumes_by_itself, ALL, "state|request"),
    (swallows_errors, ALL, "append at index .: the error of append 0 was swallowed"),
    (swallows_cancellation, ALL, "cancel: cancelled in append 0 it returned"),
    (cannot_be_cancelled, ALL, "cancel: cancelled in append 0 it returned"),
    (returns_nothing_when_it_is_not_ready, ALL, "not ready at index 3: returned 0 groups instead of raising"),
]


@pytest.mark.parametrize(("handler", "request_", "message"), BUGS, ids=[bug[0].__name__ for bug in BUGS])
async def test_a_handler_with_a_bug_is_refused_and_the_message_says_why(
    handler: Handler, request_: Request, message: str
) -> None:
    with pytest.raises(PromiseBroken, match=f"snapshot handler, ({message})"):
        await check(handler, request_)


@pytest.mark.parametrize("handler", [looks_at_the_token, resumes_by_itself])
async def test_a_handler_that_looks_at_the_request_is_found_without_a_model(handler: Handler) -> None:
    shop = Shop(handler)
    shop.commit(("web", "a"))
    shop.commit(("db", "b"))
    with pytest.raises(PromiseBroken, match="request at index 2: a request with a token gets"):
        await check_snapshot_handler(shop.snapshot, ALL)


async def test_a_handler_that_is_broken_by_a_cancellation_is_found() -> None:
    """The planted bug: a flag that says it is busy, and is not taken back."""
    busy = False

    async def handler(shop: Shop, request: Request, snapshot: Appender) -> int:
        nonlocal busy
        if busy:
            raise RuntimeError("busy")
        busy = True
        index = await right(shop, request, snapshot)
        await anyio.lowlevel.checkpoint()
        busy = False
        return index

    with pytest.raises(RuntimeError, match="busy"):
        await check(handler)


async def test_an_append_that_comes_after_the_end_is_found() -> None:
    async with anyio.create_task_group() as tasks:

        async def append(snapshot: Appender) -> None:
            for _ in range(3):
                await anyio.lowlevel.checkpoint()
            with pytest.raises(PromiseBroken, match="append 0 came after the function had returned"):
                await snapshot.append([event(1, "web")])

        async def handler(shop: Shop, request: Request, snapshot: Appender) -> int:
            tasks.start_soon(append, snapshot)
            return 1

        with pytest.raises(PromiseBroken, match="append at index 1: 1 appends, 0 of them awaited"):
            await check(handler)
