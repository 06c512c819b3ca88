"""A watch that is cancelled when it is about to write: its cursor is after what it has written, and not ahead."""

import itertools
from collections.abc import Iterator

import anyio
import pytest
from stores.storehouse import put
from sweep.driver import PATIENCE
from sweep.durable import kept
from sweep.watching import watches

pytestmark = [pytest.mark.anyio, pytest.mark.slow]


async def test_one_that_goes_on_writes_what_is_missing_wherever_the_first_was_cancelled() -> None:
    """D12, D7: at each write, of which the snapshot takes several, so that there is no cursor inside of it."""
    for at in itertools.count():
        async with kept(0) as keeper:
            await keeper.store.commit([put(f"{number:03}") for number in range(150)])
            with watches(keeper) as those, anyio.fail_after(PATIENCE):
                writes = itertools.count()

                def cancel(writes: Iterator[int] = writes, at: int = at) -> None:
                    keeper.commit()
                    if next(writes) == at:
                        scope.cancel()

                those.before = cancel
                with anyio.CancelScope() as scope:
                    await those.run()
                those.before = keeper.commit
                await those.run()
                await those.check()
        if not scope.cancelled_caught:
            break
    assert at > 4
