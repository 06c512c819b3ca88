"""What a view logs: whatever makes it try again, a few times a minute, and nothing that is secret."""

import logging
from typing import Any, Self

import anyio
import pytest
from backends import in_virtual_time
from catalogue import HEALTH
from scenes import ALL, opened, quiet
from view.wires import Exchange, is_gone, put, viewing, whole

from trio_stream import SubscribeRequest
from trio_stream.view import ViewEnded, ViewPool, open_view

pytestmark = pytest.mark.anyio

SECRET = "s3cret"


def messages(caplog: pytest.LogCaptureFixture) -> list[str]:
    assert {(record.name, record.levelno) for record in caplog.records} <= {
        ("trio_stream.view", logging.WARNING)
    }
    assert not any(SECRET in f"{record.getMessage()} {record.exc_info}" for record in caplog.records)
    return [record.getMessage() for record in caplog.records]


async def test_every_failure_is_logged_from_the_first_on(caplog: pytest.LogCaptureFixture) -> None:
    """U14: nothing was logged, not even at DEBUG."""
    exchange = Exchange(OSError(SECRET))
    async with viewing(exchange, SubscribeRequest(HEALTH, SECRET, token=SECRET)) as view:
        await quiet()
        assert messages(caplog) == ["the view of 'health' connects again in 0.00 s: OSError"]
        exchange.wire.give(put(1, SECRET, SECRET), whole(1))
        await view.wait_current()
        exchange.wire.end(ExceptionGroup(SECRET, [OSError(SECRET), ConnectionResetError(SECRET)]))
        await quiet()
        assert messages(caplog)[1:] == [
            "the view of 'health' connects again in 0.00 s: ExceptionGroup of ConnectionResetError, OSError"
        ]


async def test_a_handler_that_fails_is_logged_with_the_type_of_its_error(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def handler(*_: object) -> int:
        raise LookupError(SECRET)

    async with opened(handler) as (_, publisher), viewing(publisher.subscribe):
        await quiet()
    assert messages(caplog)[0] == (
        "the view of 'health' connects again in 0.00 s: SnapshotFailed (snapshot-failed) because of LookupError"
    )


async def test_a_force_close_is_logged_with_its_reason(caplog: pytest.LogCaptureFixture) -> None:
    async with opened() as (_, publisher), viewing(publisher.subscribe, ALL) as view:
        await view.wait_current()
        publisher.close_subscriptions([""])
        await quiet()
    assert messages(caplog) == [
        "the view of 'health' connects again in 0.00 s: SubscriptionForceClosed (token)"
    ]


async def test_an_end_is_logged_only_where_no_block_gets_it(caplog: pytest.LogCaptureFixture) -> None:
    error = PermissionError(SECRET)
    with pytest.raises(ViewEnded):
        async with viewing(Exchange(error)):
            await anyio.sleep_forever()
    assert messages(caplog) == []
    async with ViewPool[str, Any](Exchange(error), is_delete=is_gone) as pool:
        with pytest.raises(ViewEnded):
            await pool.get(ALL)
    assert messages(caplog) == ["the view of 'health' has ended: PermissionError"]


async def test_while_all_goes_well_nothing_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async with opened() as (store, publisher), viewing(publisher.subscribe) as view:
        for _ in range(3):
            await view.wait_index(store.commit(("web", "a")))
    assert messages(caplog) == []


@in_virtual_time
async def test_a_thousand_views_that_fail_together_log_a_few_warnings_a_minute(
    anyio_backend: object, caplog: pytest.LogCaptureFixture
) -> None:
    exchange = Exchange(*[OSError(SECRET)] * 100_000)
    async with ViewPool[str, Any](exchange, is_delete=is_gone) as pool, anyio.create_task_group() as tasks:
        for number in range(1000):
            tasks.start_soon(pool.get, SubscribeRequest(HEALTH, f"{number}"))
        await anyio.sleep(50)
        assert len(messages(caplog)) == 10
        assert len(exchange.requests) > 2000
        before = len(exchange.requests)
        await anyio.sleep(61)
        lines = messages(caplog)[10:]
        assert 11 <= len(lines) <= 22
        left_out = int(lines[0].removesuffix(" more warnings were not logged"))
        assert before - 10 <= left_out <= len(exchange.requests)
        tasks.cancel_scope.cancel()


async def test_an_end_is_logged_when_those_who_would_have_been_told_have_gone(
    caplog: pytest.LogCaptureFixture,
) -> None:
    exchange = Exchange()
    async with ViewPool[str, Any](exchange, is_delete=is_gone) as pool:
        for _ in range(2):
            async with pool.view(ALL):
                await quiet()
        exchange.wire.end(PermissionError(SECRET))
        await quiet()
        assert messages(caplog) == ["the view of 'health' has ended: PermissionError"]


class Silent:
    """A connection that keeps to itself why it has ended."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    async def __aenter__(self) -> Self:
        await self._connection.__aenter__()
        return self

    async def __aexit__(self, *error: object) -> bool:
        await self._connection.__aexit__(*error)
        return True


async def test_a_connection_that_does_not_say_why_it_has_ended_is_logged_too(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with opened(index=1) as (_, publisher):
        async with open_view(lambda request: Silent(publisher.subscribe(request)), ALL) as view:
            await view.wait_current()
            publisher.close_subscriptions([""])
            await quiet()
            assert "SubscriptionForceClosed (token)" in messages(caplog)[0]
            await view.wait_current()
