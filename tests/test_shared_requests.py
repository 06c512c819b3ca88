"""What readers who ask for the same have in common."""

import pytest
from catalogue import HEALTH, JOBS
from scenes import opened

from trio_stream import SubscribeRequest

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    "asked",
    [
        lambda: SubscribeRequest(HEALTH, "web"),
        lambda: SubscribeRequest(HEALTH),
        lambda: SubscribeRequest(HEALTH, "w", prefix=True),
        lambda: SubscribeRequest(HEALTH, "web") | SubscribeRequest(JOBS),
    ],
    ids=["a key", "every key", "a prefix", "a union"],
)
async def test_open_subscriptions_to_the_same_share_their_interests(asked: object) -> None:
    """D11: they are a fifth of what an idle subscription takes."""
    assert callable(asked)
    async with opened(index=1) as (_, publisher):
        first, second = publisher.subscribe(asked()), publisher.subscribe(asked())
        assert first.request.interests is second.request.interests
