"""What a snapshot says of a finished key."""

import pytest
from stores.storehouse import JOBS, Sink
from typing_extensions import override

from trio_stream import ALL, SubscribeRequest
from trio_stream.stores import Put, Store

pytestmark = pytest.mark.anyio


class Finishing(Sink):
    """Of a source whose subjects can finish."""

    is_finished = False

    @override
    def finish(self) -> None:
        self.is_finished = True


@pytest.mark.parametrize(
    ("request_", "is_finished"),
    [
        (SubscribeRequest(JOBS, key="a"), True),
        (SubscribeRequest(JOBS), False),
        (SubscribeRequest(JOBS, key="a", prefix=True), False),
        (SubscribeRequest(JOBS, key="a", namespace=ALL), False),
        (SubscribeRequest(JOBS, key="a", partition=ALL), False),
    ],
)
async def test_only_a_request_of_one_key_can_be_finished(
    store: Store, request_: "SubscribeRequest", is_finished: bool
) -> None:
    await store.commit([Put("jobs", "a", 1, final=True)])
    sink = Finishing()
    await store.snapshot(request_, sink)
    assert len(sink.records) == 1
    assert sink.is_finished == is_finished
