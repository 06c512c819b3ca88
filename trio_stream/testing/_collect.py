"""Takes from a subscription what is there, without sleeping and without guessing how much it is."""

from typing import Any

from typing_extensions import TypeVar

from trio_stream import EndOfSubject, Event, Subscription, SubscriptionState, WouldBlock

from ._arguments import check_upto

P = TypeVar("P", default=Any)


async def collect(
    subscription: Subscription[P], *, upto: int | None = None, into: list[Event[P]] | None = None
) -> list[Event[P]]:
    """Receives until the snapshot is complete and nothing more is ready; returns all of it.

    `upto`: goes on until the publisher has published this index, of whatever topic, and what it brought is received.
    `into`: the list to add to and to return; it keeps what was received when the subscription ends, or this is
    cancelled.

    It waits for a snapshot and for `upto`, never for an event that may not come: wrap it in `fail_after`.
    A subject that is finished has nothing more to come: what there was of it is returned, whatever `upto` is.
    A checkpoint; raises what receiving raises.
    """
    check_upto(upto)
    events: list[Event[P]] = [] if into is None else into
    try:
        await _collect(subscription, upto, events)
    except EndOfSubject:
        if subscription.state is not SubscriptionState.FINISHED:  # it was raised by a payload
            raise
    return events  # noqa: ASYNC910 - there was one before the end was raised


async def _collect(subscription: Subscription[P], upto: int | None, events: list[Event[P]]) -> None:
    await subscription.wait_published(0)
    while True:
        while subscription.statistics().state is SubscriptionState.SNAPSHOT:
            events.append(await subscription.receive())
        try:
            while subscription.statistics().state is not SubscriptionState.SNAPSHOT:
                events.append(subscription.receive_nowait())
        except WouldBlock:
            if subscription.statistics().state is SubscriptionState.SNAPSHOT:
                continue  # it was too slow, and waits for a new one
            if upto is None or subscription.horizon >= upto:
                return
            if subscription.statistics().state is SubscriptionState.RESUMING:
                # Ahead of what is published: whether its cursor is right is known when that is reached.
                await subscription.wait_published(min(upto, subscription.request.index))
                if upto < subscription.request.index:
                    return
            else:
                await subscription.wait_published(subscription.horizon + 1)
