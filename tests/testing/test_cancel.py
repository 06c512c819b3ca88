"""`cancel_at_every_checkpoint`: each checkpoint once, by scope and natively, and what it finds."""

from collections.abc import Callable

import anyio
import anyio.lowlevel
import pytest
import trio

from trio_stream.testing import cancel_at_every_checkpoint

pytestmark = pytest.mark.anyio


def ways() -> list[bool]:
    return [False] if trio.lowlevel.in_trio_run() else [False, True]


async def test_each_checkpoint_is_cancelled_once_and_the_last_run_gets_to_its_end() -> None:
    for native in ways():
        reached: list[int] = []
        ends: list[bool] = []

        async def call(reached: list[int] = reached) -> None:
            for number in range(3):
                reached.append(number)
                await anyio.lowlevel.checkpoint()
            reached.append(-1)

        async def after(was_cancelled: bool, ends: list[bool] = ends) -> None:
            ends.append(was_cancelled)

        assert await cancel_at_every_checkpoint(call, native=native, after_each=after) == 3
        assert reached == [0, 0, 1, 0, 1, 2, 0, 1, 2, -1]
        assert ends == [True, True, True, False]


async def test_a_function_without_checkpoints_runs_once() -> None:
    runs: list[int] = []

    async def call() -> None:
        runs.append(1)

    assert await cancel_at_every_checkpoint(call) == 0
    assert runs == [1]


async def test_a_call_that_waits_is_cancelled_there_and_another_task_may_end_the_wait() -> None:
    for native in ways():
        cancelled: list[str] = []

        async def call(cancelled: list[str] = cancelled) -> None:
            async with anyio.create_task_group() as tasks:
                event = anyio.Event()
                tasks.start_soon(let_go, event)
                try:
                    await event.wait()
                except anyio.get_cancelled_exc_class():
                    cancelled.append("wait")
                    raise

        async def let_go(event: anyio.Event) -> None:
            await anyio.lowlevel.checkpoint()
            event.set()

        await cancel_at_every_checkpoint(call, native=native)
        assert cancelled == ["wait"]


async def test_a_shielded_checkpoint_is_passed_and_the_next_one_cancelled() -> None:
    reached: list[str] = []

    async def call() -> None:
        with anyio.CancelScope(shield=True):
            await anyio.lowlevel.checkpoint()
        reached.append("inside")
        await anyio.lowlevel.checkpoint()
        reached.append("end")

    await cancel_at_every_checkpoint(call)
    assert reached.count("end") == 1
    assert reached.count("inside") >= 2


async def test_an_error_comes_out() -> None:
    async def call() -> None:
        await anyio.lowlevel.checkpoint()
        raise KeyError("a")

    for native in ways():
        with pytest.raises(KeyError):
            await cancel_at_every_checkpoint(call, native=native)


@pytest.mark.parametrize("leak", [False, True])
async def test_it_finds_what_is_left_behind_by_a_cancellation(leak: bool) -> None:
    """The planted bug is litestar #4871: registered before a checkpoint, and never taken out."""
    registered: set[object] = set()

    async def call() -> None:
        me = object()
        registered.add(me)
        try:
            if leak:
                await anyio.lowlevel.checkpoint()
                registered.remove(me)
                return
            await anyio.lowlevel.checkpoint()
        finally:
            if not leak:
                registered.remove(me)

    await cancel_at_every_checkpoint(call)
    assert bool(registered) is leak


@pytest.mark.parametrize("anyio_backend", ["trio"])
async def test_there_is_no_native_cancellation_on_trio(anyio_backend: str) -> None:
    call: Callable[[], object] = anyio.lowlevel.checkpoint
    assert call is not None
    with pytest.raises(ValueError, match="no native cancellation"):
        await cancel_at_every_checkpoint(anyio.lowlevel.checkpoint, native=True)
