"""Every public async call, cancelled wherever it waits, by scope and natively, and in the tick in which it is woken."""

import inspect
from collections.abc import Iterator
from typing import Any

import pytest
from evidence import count
from interruptions import drives, in_task
from sweep.core import CORE
from sweep.driver import ORDERS, sweep
from sweep.durable import STORES
from sweep.slow import SLOW
from sweep.views import VIEW
from sweep.watching import watching

import trio_stream
import trio_stream.stores
import trio_stream.view

pytestmark = pytest.mark.slow

COMMANDS = {"trio-stream watch": watching}
CALLS = {**CORE, **SLOW, **STORES, **VIEW, **COMMANDS}
# What others implement for a view; the library does it with its subscriptions, which are swept.
OF_OTHERS = {f"Connection.{name}" for name in ("__aenter__", "__aexit__", "receive_batch", "wait_published")}


@pytest.mark.anyio
@pytest.mark.parametrize("name", CALLS)
async def test_a_call_that_was_cancelled_and_is_made_again_is_as_if_it_never_was(name: str) -> None:
    """D12, D13: at each suspension, alone and with a wake, in both orders."""
    for drive in drives():
        for order in ORDERS:
            cancelled = await sweep(CALLS[name], order, drive)
            count("swept", f"{name}: {'natively' if drive is in_task else 'by scope'}", cancelled)


def test_no_public_async_call_is_missing() -> None:
    """D12: found by looking at what the packages offer."""
    found = {
        name
        for package in (trio_stream, trio_stream.stores, trio_stream.view)
        for name in async_calls(package)
    }
    assert found - OF_OTHERS == {
        name for name in CALLS if "step of" not in name and "each step" not in name
    } - set(COMMANDS)
    assert found >= OF_OTHERS


def async_calls(package: Any) -> Iterator[str]:
    for name, thing in inspect.getmembers(package):
        if name.startswith("_"):
            continue
        if inspect.isclass(thing):
            for attribute in dir(thing):
                is_public = not attribute.startswith("_") or attribute.startswith("__a")
                if is_public and is_async(inspect.getattr_static(thing, attribute)):
                    yield f"{name}.{attribute}"
        elif is_async(thing):
            yield name


def is_async(function: Any) -> bool:
    """Whether one awaits what it returns, or enters it with `async with`."""
    if not inspect.isfunction(function):
        return False
    inner = inspect.unwrap(function)
    returned = str(inspect.signature(inner).return_annotation)
    return (
        inspect.iscoroutinefunction(inner)
        or inspect.isasyncgenfunction(inner)
        or any(
            name in returned for name in ("Awaitable", "AsyncContextManager", "AsyncIterator", "Coroutine")
        )
    )
