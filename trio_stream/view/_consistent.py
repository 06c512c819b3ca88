"""Several views at one index."""

from typing import Any

import anyio

from ._errors import EpochChanged, StateLostError, ViewEnded
from ._state import Frozen
from ._view import View, check_index


async def consistent(*views: View[Any, Any], at: int) -> tuple[Frozen[Any, Any], ...]:
    """The states of several views of one store at the same index, in the order of the views.

    Waits until each view has everything up to `at`; the others go on meanwhile.
    Raises `ViewEnded`, `EpochChanged` also when the views are of different epochs, and `StateLostError` when a view
    had passed the index too long ago.
    A checkpoint.
    """
    check_index(at)
    for view in views:
        if not isinstance(view, View):
            raise TypeError(f"{view!r} is not a view: consistent(*views, at=index)")
    states: dict[int, Frozen[Any, Any]] = {}
    failures: list[Exception] = []

    async def wait(position: int, view: View[Any, Any]) -> None:  # noqa: ASYNC910 - leaving its task group is one
        try:
            reached = await view.wait_index(at)
            state = reached if reached.index <= at else view.state_at(at)
            if state is None:
                raise StateLostError(f"{view!r} does not know its state at {at} any more")
            states[position] = state
        except (ViewEnded, EpochChanged, StateLostError) as error:
            failures.append(error)
            tasks.cancel_scope.cancel()

    async with anyio.create_task_group() as tasks:
        for position, view in enumerate(views):
            tasks.start_soon(wait, position, view)
    if failures:
        raise failures[0]
    cut = tuple(states[position] for position in range(len(views)))
    for state in cut:
        if state.epoch != cut[0].epoch:
            raise EpochChanged(cut[0].epoch, state.epoch)
    return cut
