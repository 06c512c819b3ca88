"""The event loops that tests run on; those marked `variant` are left to the newest Python."""

import asyncio
import sys
from importlib.util import find_spec
from typing import Any

import pytest
from trio.testing import MockClock

needs_uvloop = pytest.mark.skipif(find_spec("uvloop") is None, reason="uvloop is not installed")


def backend(name: str, library: str, *marks: pytest.MarkDecorator, **options: Any) -> Any:
    """A parameter for `anyio_backend`: what anyio's pytest plugin wants, under a name for `-k`."""
    return pytest.param((library, options), id=name, marks=marks)


# Two more ways to run asyncio, for which those who wait for the tests need not wait.
RARE = (pytest.mark.variant, pytest.mark.slow)

TRIO = [backend("trio", "trio")]
ASYNCIO = [
    backend("asyncio", "asyncio", use_uvloop=False),
    backend("asyncio+uvloop", "asyncio", pytest.mark.variant, needs_uvloop, use_uvloop=True),
    backend("asyncio+debug", "asyncio", *RARE, use_uvloop=False, debug=True),
]
if sys.version_info >= (3, 12):

    def eager_loop() -> asyncio.AbstractEventLoop:
        """A loop whose tasks begin where they are created, and run there up to their first suspension."""
        loop = asyncio.new_event_loop()
        loop.set_task_factory(asyncio.eager_task_factory)
        return loop

    ASYNCIO.append(backend("asyncio+eager", "asyncio", *RARE, loop_factory=eager_loop))

# For what stands on public names: the core is tried on all of them.
USUAL = [*TRIO, *ASYNCIO[:2]]

# In debug mode each future and each task keeps the stack that made it.
LEAN = [each for each in (*TRIO, *ASYNCIO) if each.id != "asyncio+debug"]

in_virtual_time = pytest.mark.parametrize(
    "anyio_backend", [backend("virtual time", "trio", clock=MockClock(autojump_threshold=0))]
)
