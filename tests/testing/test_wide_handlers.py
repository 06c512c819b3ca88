"""`check_snapshot_handler` of functions that know prefixes and `ALL`, and of those that return a cursor."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from catalogue import HEALTH, JOBS, Catalogue, Health, apply, event

from trio_stream import ALL, Cursor, Event, SnapshotAppender, SubscribeRequest
from trio_stream.testing import Model, PromiseBroken, check_snapshot_handler

pytestmark = pytest.mark.anyio

Request = SubscribeRequest[Health]
Appender = SnapshotAppender[Health]

EVERYTHING = SubscribeRequest(HEALTH)
WIDE = SubscribeRequest(HEALTH, "web", prefix=True, namespace=ALL)

COMMITS = [
    [event(1, "web", "a"), event(1, "web2", "a", namespace="blue"), event(1, "web", "a", topic=JOBS)],
    [event(2, "db", "b", namespace="blue"), event(2, "web", "b", namespace="blue")],
]


def store() -> Catalogue:
    store = Catalogue()
    for commit in COMMITS:
        store.commit_events(commit)
    return store


def model(request: Request) -> Model[Health]:
    return Model(request=request, commits=COMMITS, apply=apply)


def rows(request: Request) -> list[Event[Health]]:
    held = store()
    return [
        event(held.modified[HEALTH, subject], subject.key, value, namespace=subject.namespace)
        for subject, value in held.state_at(2, request).items()
    ]


@pytest.mark.parametrize(
    "request_",
    [
        WIDE,
        SubscribeRequest(HEALTH, "w", prefix=True),
        SubscribeRequest(HEALTH, "web", namespace=ALL),
        SubscribeRequest(HEALTH, namespace=ALL, partition=ALL),
        SubscribeRequest(HEALTH, namespace="blue", partition="another"),
        SubscribeRequest(HEALTH, "w", prefix=True, namespace="nobody"),
    ],
)
async def test_a_function_that_knows_prefixes_and_all_passes(request_: Request) -> None:
    await check_snapshot_handler(store().snapshot, request_, model=model(request_))


async def takes_a_prefix_for_a_key(request: Request, snapshot: Appender) -> int:
    for row in rows(request):
        if row.payloads[0].key == request.key:
            await snapshot.append([row])
    return 2


async def takes_a_prefix_for_all_keys(request: Request, snapshot: Appender) -> int:
    for row in rows(SubscribeRequest(HEALTH, namespace=ALL)):
        await snapshot.append([row])
    return 2


async def takes_all_for_the_default(request: Request, snapshot: Appender) -> int:
    for row in rows(SubscribeRequest(HEALTH, request.key, prefix=request.prefix)):
        await snapshot.append([row])
    return 2


@pytest.mark.parametrize(
    ("handler", "message"),
    [
        (takes_a_prefix_for_a_key, "state at index 2: the snapshot gives"),
        (
            takes_a_prefix_for_all_keys,
            r"append at index 2: 'default/blue/db' where 'default/\*/web\*' was asked",
        ),
        (takes_all_for_the_default, "state at index 2: the snapshot gives"),
    ],
)
async def test_a_function_that_does_not_know_them_is_found(handler: Any, message: str) -> None:
    with pytest.raises(PromiseBroken, match=f"snapshot handler, {message}"):
        await check_snapshot_handler(handler, WIDE, model=model(WIDE))


async def test_a_union_is_refused_at_the_call() -> None:
    """No function is asked for one: it is composed."""
    with pytest.raises(ValueError, match="one interest at a time, not for 2"):
        await check_snapshot_handler(store().snapshot, WIDE | SubscribeRequest(JOBS))


def returning(*values: Any) -> Callable[[Request, Appender], Awaitable[Any]]:
    """A function that appends the state, and returns these one after the other, the last one ever after."""
    left = list(values)

    async def handler(request: Request, snapshot: Appender) -> Any:
        for row in rows(request):
            await snapshot.append([row])
        return left.pop(0) if len(left) > 1 else left[0]

    return handler


@pytest.mark.parametrize("returned", [Cursor(2, "e"), Cursor(2, "e", "m"), 2])
async def test_a_function_may_return_a_cursor(returned: Any) -> None:
    await check_snapshot_handler(returning(returned), EVERYTHING, model=model(EVERYTHING))


async def test_another_index_has_another_mark() -> None:
    handler = returning(Cursor(2, "e", "m"), Cursor(3, "e", "n"))
    await check_snapshot_handler(handler, EVERYTHING, model=model(EVERYTHING))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            (Cursor(2, "e", "m"), Cursor(2, "e", "n")),
            "cursor at index 2: returned .*'n'.*, and before .*'m'.*, of another commit",
        ),
        (
            (Cursor(2, "e"), Cursor(2, "f")),
            "cursor at index 2: returned .*'f'.*, and before .*'e'.*, of another epoch",
        ),
        (
            (Cursor(2, "e"), Cursor(3, "f")),
            "cursor at index 3: returned .*'f'.*, and before .*'e'.*, of another epoch",
        ),
        ((Cursor(2, "e"), 2), "cursor at index 2: returned 2, and before Cursor"),
        ((Cursor(1, "e"),), "index at index 1: returned although the state has 2"),
        ((Cursor(0, "e"),), "index at index 0: 0 is for a store without a commit"),
        ((True,), "index: returned True, not an integer or a Cursor"),
        ((("2", "e"),), "index: returned .*, not an integer or a Cursor"),
    ],
)
async def test_a_cursor_that_is_not_right_is_found(values: tuple[Any, ...], message: str) -> None:
    with pytest.raises(PromiseBroken, match=f"snapshot handler, {message}"):
        await check_snapshot_handler(returning(*values), WIDE)


async def test_a_function_that_looks_at_the_mark_is_found() -> None:
    async def handler(request: Request, snapshot: Appender) -> int:
        if not request.mark:
            for row in rows(request):
                await snapshot.append([row])
        return 2

    with pytest.raises(PromiseBroken, match="request at index 2: a request with a token gets"):
        await check_snapshot_handler(handler, EVERYTHING)
