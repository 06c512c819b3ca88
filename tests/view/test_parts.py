"""A view of what its reader may see and wants: keys come and go with their payloads; and one that conflates."""

from functools import partial
from typing import Any

import pytest
from catalogue import Health
from conflated import by_row
from replaced import replacing
from scenes import ALL, quiet
from view.wires import truth, values, viewing

from trio_stream.view import Change

pytestmark = pytest.mark.anyio


def is_bad(payload: Health) -> bool:
    return payload.value == "bad"


@pytest.mark.parametrize(
    "options",
    [{"where": is_bad}, {"authorizer": frozenset({"web=bad", "db=bad"})}],
    ids=["where", "authorizer"],
)
async def test_a_view_drops_what_its_reader_may_see_no_longer(options: Any) -> None:
    """D19: also what is deleted; and it says so in its changes."""
    async with replacing() as (store, publisher):
        store.commit(("web", "bad"), ("db", "ok"))
        async with viewing(partial(publisher.subscribe, **options)) as view:
            await view.wait_current()
            assert values(view) == {"web": "bad"}
            async with view.changes() as changes:
                store.commit(("web", "ok"), ("db", "bad"))
                await view.wait_index(2)
                assert values(view) == {"db": "bad"}
                told = {await anext(changes), await anext(changes)}
                assert told == {
                    Change("web", Health("web", "bad"), None),
                    Change("db", None, Health("db", "bad")),
                }
            store.commit(("web", None), ("db", None))
            await view.wait_index(3)
            assert values(view) == {}


async def test_a_view_that_conflates_shows_the_state_whatever_was_committed_meanwhile() -> None:
    """D21."""
    async with by_row() as (store, publisher):
        store.commit(("web", "0"))
        async with viewing(partial(publisher.subscribe, on_lag="conflate")) as view:
            await view.wait_current()
            for turn in range(3):
                for count in range(50):
                    store.commit((("web", "db", "job")[count % 3], f"{turn}.{count}" if count % 7 else None))
                await view.wait_index(store.index)
                assert values(view) == truth(store, store.index, ALL)
            await quiet()
            figures = publisher.statistics()
            assert figures.conflated == 3
            assert figures.commits == 151
