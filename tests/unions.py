"""What tests of subscriptions to several things share: their requests, and how what comes is written and folded."""

from collections.abc import Iterable

from catalogue import HEALTH, JOBS, Catalogue, Health

from trio_stream import Event, Subject, SubscribeRequest, Topic

SERVICES = SubscribeRequest(HEALTH)
WORK = SubscribeRequest(JOBS)
BOTH = SERVICES | WORK

Rows = dict[tuple[Topic[Health], Subject], str]


def shown(events: Iterable[Event[Health]]) -> list[str]:
    """As `kinds` does, with the topic: `3:health/web=ok+jobs/a=1`."""

    def one(received: Event[Health]) -> str:
        if received.framing is not None:
            return "marker" if received.is_new_snapshot_to_follow else f"eos@{received.index}"
        singles = zip(received.events, received.payloads, strict=True)
        return f"{received.index}:" + "+".join(f"{each.topic}/{p.key}={p.value}" for each, p in singles)

    return list(map(one, events))


def fold(rows: Rows, events: Iterable[Event[Health]]) -> Rows:
    """What a reader holds who had these rows and gets these events."""
    for received in events:
        if received.is_new_snapshot_to_follow:
            rows.clear()
        for single, payload in zip(received.events, received.payloads, strict=True):
            if payload.value is None:
                rows.pop((single.topic, payload.subject), None)
            else:
                rows[single.topic, payload.subject] = payload.value
    return rows


def rows_at(store: Catalogue, index: int, request: SubscribeRequest[Health]) -> Rows:
    """S(index) of several interests."""
    newest = max(known for known in store.states if known <= index)
    return {
        (topic, subject): value
        for topic, state in store.states[newest].items()
        for subject, value in state.items()
        if request.covers(topic, subject)
    }


def both(store: Catalogue, *changes: tuple[Topic[Health], str, str | None]) -> int:
    """One commit of (topic, key, value) changes, in this order."""
    index = store.index + 1
    return store.commit_events(Event(topic, index, Health(key, value)) for topic, key, value in changes)
