"""A token is a secret: it stands in nothing that is printed, logged or raised."""

import copy
import traceback
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from catalogue import HEALTH, Catalogue, Health, event

from trio_stream import (
    Event,
    EventPublisher,
    NoOpEventPublisher,
    SubscribeRequest,
    Topic,
    close_subscription_event,
)
from trio_stream.testing import Model

SECRET = "hunter2"
REQUEST = SubscribeRequest(HEALTH, "web", token=SECRET, index=5, epoch="e")


def publisher_at_5() -> EventPublisher:
    return EventPublisher({HEALTH: Catalogue().snapshot}, index=5, epoch="e")


def model() -> Model[Health]:
    return Model(request=REQUEST, commits=[], apply=print, authorizer=SECRET)


SHOWN: dict[str, Callable[[], Any]] = {
    "request": lambda: REQUEST,
    "close event": lambda: close_subscription_event([SECRET, "another"]),
    "payload of a close event": lambda: close_subscription_event([SECRET]).payload,
    "subscription": lambda: publisher_at_5().subscribe(REQUEST),
    "request of a subscription": lambda: publisher_at_5().subscribe(REQUEST).resume_request(),
    "publisher": lambda: (publisher := publisher_at_5(), publisher.subscribe(REQUEST))[0],
    "statistics": lambda: (publisher := publisher_at_5(), publisher.subscribe(REQUEST))[0].statistics(),
    "model of the test kit": model,
}


@pytest.mark.parametrize("make", SHOWN.values(), ids=SHOWN)
def test_what_has_a_token_does_not_print_it(make: Callable[[], Any]) -> None:
    """U22: nor does anything that holds it."""
    shown = make()
    for text in (repr(shown), str(shown), f"{shown}", f"{[shown]}", f"{ {'request': shown} }"):
        assert SECRET not in text


def test_a_request_and_a_close_event_still_say_what_they_are() -> None:
    assert "web" in repr(REQUEST)
    assert "index=5" in repr(REQUEST)
    assert "tokens=2" in repr(close_subscription_event([SECRET, "another", SECRET]))


def misuse() -> dict[str, Callable[[EventPublisher], object]]:
    wrong: Any = SECRET
    return {
        "a token in place of a request": lambda publisher: publisher.subscribe(wrong),
        "a token in place of a topic": lambda _: SubscribeRequest(wrong),
        "a token of bytes": lambda _: SubscribeRequest(HEALTH, token=wrong.encode()),
        "a list of tokens in place of a token": lambda _: SubscribeRequest(HEALTH, token=[wrong]),  # type: ignore[call-overload]
        "a token in place of tokens": lambda publisher: publisher.close_subscriptions(wrong),
        "bytes among tokens": lambda publisher: publisher.close_subscriptions(["a", wrong.encode()]),
        "a list among tokens": lambda publisher: publisher.close_subscriptions([[wrong]]),  # type: ignore[list-item]
        "a close event of one token": lambda _: close_subscription_event(wrong),
        "a close event of bytes": lambda _: close_subscription_event([wrong.encode()]),
        "tokens in place of events": lambda publisher: publisher.publish([wrong]),
        "a request in place of an event": lambda publisher: publisher.publish([REQUEST]),  # type: ignore[list-item]
        "a token in place of events": lambda publisher: publisher.publish(wrong),
        "a payload that is a token": lambda publisher: publisher.publish([Event(HEALTH, 6, wrong)]),
        "a subject that has a token": lambda publisher: publisher.publish([Event(HEALTH, 6, Odd())]),
        "a token in place of a topic to refresh": lambda publisher: publisher.refresh(wrong),
        "a token in place of a handler": lambda publisher: publisher.register_handler(Topic("new"), wrong),
        "an unknown topic": lambda publisher: publisher.subscribe(
            SubscribeRequest(Topic[Any]("jobs"), token=SECRET)
        ),
        "subscribing where it is disabled": lambda _: NoOpEventPublisher().subscribe(REQUEST),
        "a commit that is refused beside a close event": lambda publisher: publisher.publish(
            [close_subscription_event([SECRET]), event(5, "web")]
        ),
        "a close event with an index": lambda publisher: publisher.publish(
            [Event(HEALTH, 5, close_subscription_event([SECRET]).payload), event(5, "web")]
        ),
    }


class Odd:
    """Its subject is what no subject is."""

    subject = (SECRET,)

    def __repr__(self) -> str:
        return f"Odd({SECRET})"


@pytest.mark.parametrize("call", misuse().values(), ids=misuse())
def test_no_error_message_has_a_token(call: Callable[[EventPublisher], object]) -> None:
    """U22: messages are logged; the arguments of the error, its causes and its notes too."""
    with pytest.raises((TypeError, ValueError, LookupError, RuntimeError)) as raised:
        call(publisher_at_5())
    error: BaseException | None = raised.value
    assert SECRET not in "".join(line for line in traceback.format_exception_only(raised.value))
    while error is not None:
        assert SECRET not in f"{error!r} {error} {error.args}"
        error = error.__cause__ or error.__context__


@pytest.mark.anyio
async def test_how_a_subscription_ends_tells_no_token() -> None:
    publisher = publisher_at_5()
    ended = [publisher.subscribe(REQUEST), publisher.subscribe(REQUEST)]
    publisher.publish([close_subscription_event([SECRET])])
    ended.append(publisher.subscribe(REQUEST))
    ended[-1].close()
    for subscription in ended:
        assert SECRET not in repr(subscription)
        with pytest.raises(Exception) as raised:
            await subscription.receive()
        assert SECRET not in f"{raised.value!r} {raised.value}"


def test_a_token_is_still_part_of_the_value() -> None:
    """It is only not shown: two requests with different tokens are different."""
    other = replace(REQUEST, token="other")
    assert other != REQUEST
    assert (other.token, other.key, other.index) == ("other", "web", 5)
    assert replace(other, token=SECRET) == REQUEST == copy.deepcopy(REQUEST)
    assert len({REQUEST, other, replace(other, token=SECRET)}) == 2
    assert close_subscription_event([SECRET]) != close_subscription_event(["other"])
