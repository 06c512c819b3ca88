"""Events that a snapshot has seen already and that are published after it never come, and nobody lags behind them."""

from typing import Any

import pytest
from catalogue import Health, event, kinds, ready, until_live
from scenes import ALL, opened, settled

from trio_stream import SnapshotAppender, SubscribeRequest

pytestmark = pytest.mark.anyio


async def ahead(request: SubscribeRequest[Health], snapshot: SnapshotAppender[Health]) -> int:
    """A store that has committed 5, of which the publisher has not heard."""
    await snapshot.append([event(5, "web", "five")])
    return 5


@pytest.mark.parametrize("authorizer", [None, frozenset({"web"})])
async def test_late_events_are_dropped_whether_or_not_rights_are_checked(authorizer: Any) -> None:
    """D2."""
    async with opened(ahead) as (_, publisher):
        subscription = publisher.subscribe(ALL, authorizer=authorizer)
        assert kinds(await until_live(subscription)) == ["5:web=five", "eos@5"]
        for index in (3, 4, 5, 6):
            publisher.publish([event(index, "web", f"{index}")])
        assert await settled(subscription) == ["6:web=6"]


@pytest.mark.parametrize("authorizer", [None, frozenset({"web"})])
async def test_who_only_missed_late_events_has_not_lagged(authorizer: Any) -> None:
    """D2, D6: the history is of one commit, and what it has dropped was in the snapshot."""
    async with opened(ahead, history=1) as (_, publisher):
        subscription = publisher.subscribe(ALL, authorizer=authorizer)
        await until_live(subscription)
        for index in (3, 4, 5, 6):
            publisher.publish([event(index, "web", f"{index}")])
        assert kinds(ready(subscription)) == ["6:web=6"]
