"""`check_snapshot_handler` for functions that say that their subject is finished."""

import anyio.lowlevel
import pytest
from catalogue import HEALTH, Catalogue, Health

from trio_stream import ALL, Event, SnapshotAppender, SubscribeRequest
from trio_stream.testing import PromiseBroken, check_snapshot_handler

pytestmark = pytest.mark.anyio

WEB = SubscribeRequest(HEALTH, "web")
WIDER = [
    SubscribeRequest(HEALTH),
    SubscribeRequest(HEALTH, "we", prefix=True),
    SubscribeRequest(HEALTH, "web", namespace=ALL),
]


class Archive:
    """A store whose key `web` is finished; `always` says so whatever it is asked for."""

    def __init__(self, *, always: bool = False) -> None:
        self.store = Catalogue()
        self.store.commit(("web", "1"), ("db", "1"))
        self.always = always
        self.wanted: list[bool] = []

    async def snapshot(self, request: SubscribeRequest[Health], snapshot: SnapshotAppender[Health]) -> int:
        index = self.store.index
        for subject, value in self.store.state_at(index, request).items():
            self.wanted.append(await snapshot.append([Event(HEALTH, index, Health(subject.key, value))]))
        (interest,) = request.interests
        if self.always or (interest.key == "web" and not interest.prefix and interest.namespace is not ALL):
            snapshot.finish()
        return index


@pytest.mark.parametrize("request_", [WEB, SubscribeRequest(HEALTH, "db"), *WIDER])
async def test_a_function_that_finishes_one_key_passes(request_: SubscribeRequest[Health]) -> None:
    archive = Archive()
    await check_snapshot_handler(archive.snapshot, request_, finishes=True)
    assert set(archive.wanted) == {True}


async def test_a_function_of_a_source_that_does_not_finish_gets_the_error_of_the_publisher() -> None:
    with pytest.raises(RuntimeError):
        await check_snapshot_handler(Archive().snapshot, WEB)


@pytest.mark.parametrize("request_", WIDER)
async def test_a_function_that_finishes_more_than_one_key_gets_the_error_of_the_publisher(
    request_: SubscribeRequest[Health],
) -> None:
    with pytest.raises(RuntimeError):
        await check_snapshot_handler(Archive(always=True).snapshot, request_, finishes=True)


async def test_a_function_that_says_it_in_some_runs_only_is_found() -> None:
    runs = 0

    async def snapshot(_: SubscribeRequest[Health], appender: SnapshotAppender[Health]) -> int:
        nonlocal runs
        runs += 1
        await anyio.lowlevel.checkpoint()
        if runs % 2:
            appender.finish()
        return 1

    with pytest.raises(PromiseBroken, match="finish at index 1: one run says"):
        await check_snapshot_handler(snapshot, WEB, finishes=True)


async def test_a_function_that_says_it_after_it_has_returned_is_found() -> None:
    appenders: list[SnapshotAppender[Health]] = []

    async def snapshot(_: SubscribeRequest[Health], appender: SnapshotAppender[Health]) -> int:
        await anyio.lowlevel.checkpoint()
        if appenders:
            appenders[-1].finish()
        appenders.append(appender)
        return 1

    with pytest.raises(PromiseBroken, match="finish: it was called after"):
        await check_snapshot_handler(snapshot, WEB, finishes=True)
