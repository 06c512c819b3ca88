"""Keys and tokens that no store can have: refused at the call, and no token stands in what is raised."""

import traceback
from collections.abc import Callable

import pytest
from stores.storehouse import JOBS, put, until_live

from trio_stream import Cursor, SubscribeRequest
from trio_stream.stores import Record, Revoke, Store, open_store_publisher, token_digest

pytestmark = pytest.mark.anyio

HALF = "hunter-\ud800"  # half of a surrogate pair: no text that is sent can have it
UNREADABLE = {
    "key": SubscribeRequest(JOBS, HALF),
    "prefix": SubscribeRequest(JOBS, HALF, prefix=True),
    "namespace": SubscribeRequest(JOBS, namespace=HALF),
    "partition": SubscribeRequest(JOBS, partition=HALF),
    "NUL in a key": SubscribeRequest(JOBS, "hunter-\0"),
    "NUL in a namespace": SubscribeRequest(JOBS, namespace="hunter-\0"),
    "one of several": SubscribeRequest(JOBS, "a") | SubscribeRequest(JOBS, HALF),
}


@pytest.mark.parametrize("request_", UNREADABLE.values(), ids=UNREADABLE.keys())
async def test_what_no_store_can_have_is_refused_when_it_is_asked_for(
    store: Store, request_: SubscribeRequest[Record]
) -> None:
    """D18."""
    async with open_store_publisher(store, ["jobs"]) as publisher:
        for each in (request_, request_.after(Cursor(1, publisher.epoch))):
            with pytest.raises(ValueError, match=r"hunter-\\(ud800|x00)") as caught:
                publisher.subscribe(each)
            assert type(caught.value) is ValueError
        assert publisher.statistics().subscriptions == 0


def assert_without_secret(error: BaseException) -> None:
    """Nor in what it is raised from, and not as the value of a field."""
    assert type(error) is ValueError
    assert error.__context__ is None
    assert "hunter" not in "".join(traceback.format_exception(error))


async def test_a_token_that_no_store_can_have_is_refused_without_being_told(store: Store) -> None:
    async with open_store_publisher(store, ["jobs"]) as publisher:
        with pytest.raises(ValueError, match="token") as caught:
            publisher.subscribe(SubscribeRequest(JOBS, token=HALF))
        assert_without_secret(caught.value)
        async with publisher.subscribe(SubscribeRequest(JOBS, token="good")) as subscription:
            await store.commit([put("a")])
            await until_live(subscription)
            with pytest.raises(ValueError, match="token") as caught:
                publisher.close_subscriptions(["good", HALF])
            assert_without_secret(caught.value)
            assert publisher.statistics().subscriptions == 1


def test_neither_is_it_revoked_nor_is_there_a_digest_of_it() -> None:
    attempts: list[Callable[[], object]] = [lambda: Revoke(HALF), lambda: token_digest(HALF, b"salt")]
    for attempt in attempts:
        with pytest.raises(ValueError, match="token") as caught:
            attempt()
        assert_without_secret(caught.value)


@pytest.mark.parametrize("name", ["", "a\0b", HALF], ids=["empty", "NUL", "half"])
async def test_a_topic_that_no_store_can_have_is_refused_when_the_publisher_is_opened(
    store: Store, name: str
) -> None:
    with pytest.raises(ValueError, match="a topic must not"):
        async with open_store_publisher(store, ["jobs", name]):
            pytest.fail("there is nothing to publish")
