"""What one commit is: events of one index that are about the state, split by topic and by the feeds they touch."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

from ._errors import InvalidCommitError
from ._events import Event, Framing, PayloadEvents, Subject, Topic, check_index

Groups: TypeAlias = Mapping[Subject, list[Event[Any]]]
"""The events of one commit and topic for each feed, in order."""


def check_event(event: Event[Any]) -> None:
    """Raises `InvalidCommitError` unless this is an event that can be published, with a proper index."""
    if not isinstance(event, Event):
        raise InvalidCommitError(f"not an event: {event!r}")
    if type(event.payload) in (Framing, PayloadEvents):
        raise InvalidCommitError(f"a {type(event.payload).__name__} payload cannot be published or appended")
    try:
        check_index(event.index)
    except (TypeError, ValueError) as error:
        raise InvalidCommitError(str(error)) from None


def check_one_index(events: Sequence[Event[Any]]) -> int:
    """The index that all of these events have; `InvalidCommitError` if they have several."""
    index = events[0].index
    for event in events:
        if event.index != index:
            raise InvalidCommitError(f"events of different indexes in one commit: {index} and {event.index}")
    return index


def split(events: Iterable[Event[Any]]) -> dict[Topic[Any], Groups]:
    """The events by topic and by the feeds they touch: that of their subject and that of the blank key."""
    topics: dict[Topic[Any], dict[Subject, list[Event[Any]]]] = {}
    for event in events:
        groups = topics.setdefault(event.topic, {})
        subject = _subject(event)
        groups.setdefault(subject, []).append(event)
        if subject.key:
            groups.setdefault(Subject("", subject.namespace, subject.partition), []).append(event)
    return {**topics}


def _subject(event: Event[Any]) -> Subject:
    payload: Any = event.payload
    match payload.subject:
        case Subject(key=str(), namespace=str(), partition=str()) as subject:
            return subject
        case str() as key:
            return Subject(key)
        case subject:
            raise InvalidCommitError(
                f"the subject of {event.payload!r} is a Subject or a string, not {subject!r}"
            )


def delivery(events: Sequence[Event[Any]], before: Event[Any] | None = None) -> Event[Any]:
    """What the readers of one feed get of these events of a commit: one event.

    A batch is shared with the feed `before` if that one got the same: an event is in the feed of its key and in
    that of the blank key, which has all of the former, so that the same beginning and length mean the same batch.
    """
    first = events[0]
    if len(events) == 1:
        return first
    if before is not None and len(before.events) == len(events) and before.events[0] is first:
        return before
    return Event(first.topic, first.index, PayloadEvents(events))
