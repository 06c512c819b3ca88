"""What one commit is: events of one index that are about the state, split by topic and by the feeds they touch."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from inspect import getattr_static, ismemberdescriptor
from operator import is_
from types import MappingProxyType
from typing import Any, Final, Literal, TypeAlias, cast

from ._arguments import check_index
from ._errors import InvalidCommitError
from ._events import (
    CloseSubscriptions,
    Event,
    Framing,
    PayloadEvents,
    Subject,
    Topic,
    check_topic,
    subject_of,
)
from ._rights import Replacement

Groups: TypeAlias = Mapping[Subject, list[Event[Any]]]
"""The events of one commit and topic for each plain feed, in order."""
Pairs: TypeAlias = Sequence[tuple[Event[Any], Subject]]
"""The events of a commit with their subjects, of all topics, in the order they were published."""


_UNUSUAL: Final = frozenset({Framing, PayloadEvents, CloseSubscriptions})  # payloads


def check_event(event: Event[Any]) -> None:
    """Raises `InvalidCommitError` unless this is an event that can be published, with a proper index."""
    if not isinstance(event, Event):
        raise InvalidCommitError(f"{type(event).__name__} is not an event")
    if type(event.payload) in (Framing, PayloadEvents):
        raise InvalidCommitError(f"a {type(event.payload).__name__} payload cannot be published or appended")
    try:
        check_topic(event.topic)
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


def is_ordinary(event: Event[Any]) -> bool:
    """Whether `check_event` has nothing against it, and it closes nothing: the common case, in a third of the time."""
    return (
        type(event) is Event
        and type(event.index) is int
        and event.index >= 0
        and type(event.topic) is Topic
        and type(event.mark) is str
        and event.previous is None
        and type(event.payload) not in _UNUSUAL
    )


def checked(events: Iterable[Event[Any]]) -> tuple[list[Event[Any]], set[str]]:
    """The events that are about the state, and the tokens of close events; raises what `check_event` raises."""
    commit: list[Event[Any]] = []
    closing: set[str] = set()
    for event in events:
        if is_ordinary(event):
            commit.append(event)
            continue
        check_event(event)
        if isinstance(event.payload, CloseSubscriptions):
            closing |= event.payload.token_secret_ids
        else:
            commit.append(event)
    return commit, closing


def without_previous(events: list[Event[Any]]) -> tuple[list[Event[Any]], list[Replacement]]:
    """The events as subscribers may have them, and what they replace.

    `InvalidCommitError` if that is of another subject, or cannot be withdrawn.
    """
    replacements = [_replacement(event) for event in events if event.previous is not None]
    if not replacements:
        return events, replacements  # the common case, in half of the time
    ready = iter(replacements)
    return [event if event.previous is None else next(ready).event for event in events], replacements


def _replacement(event: Event[Any]) -> Replacement:
    previous: Any = event.previous
    if isinstance(previous, Event | Framing | PayloadEvents):
        raise InvalidCommitError(f"previous is the payload that was replaced, not {type(previous).__name__}")
    if not callable(getattr(type(previous), "withdrawn", None)):
        raise InvalidCommitError(f"a payload of type {type(previous).__name__} has no withdrawn()")
    subject, before = plain_subject_of(event.payload), plain_subject_of(previous)
    if subject != before:
        raise InvalidCommitError(
            f"an event of subject {str(Subject(*subject))!r} does not replace {str(Subject(*before))!r}"
        )
    return Replacement(Event(event.topic, event.index, event.payload, mark=event.mark), previous)


def split(events: Iterable[Event[Any]]) -> tuple[Pairs, dict[Topic[Any], Groups]]:
    """The events with their subjects; and by topic and plain feed: that of the subject and that of the blank key.

    The subjects are perhaps plain tuples.
    """
    pairs: list[tuple[Event[Any], Subject]] = []
    topics: dict[Topic[Any], dict[Subject, list[Event[Any]]]] = {}
    topic: Topic[Any] | None = None
    groups: dict[Subject, list[Event[Any]]] = {}
    for event in events:
        if event.topic is not topic:
            topic = event.topic
            groups = topics.setdefault(topic, {})
        subject = plain_subject_of(event.payload)
        pairs.append((event, subject))
        _add(groups, subject, event)
        key, namespace, partition = subject
        if key:
            _add(groups, cast("Subject", ("", namespace, partition)), event)
    return pairs, {**topics}


Ending: TypeAlias = Mapping[Topic[Any], Collection[Subject]]
"""The subjects that a commit finishes, or reopens, by topic, each once."""
NO_END: Final[Ending] = MappingProxyType({})


def subjects_to(what: Literal["finish", "reopen"], given: object) -> Ending:
    """What `publish` was given; raises unless they are pairs of a topic and one key of it."""
    if given == ():
        return NO_END
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise TypeError(f"{what} is an iterable of (topic, subject), not {type(given).__name__}")
    subjects: dict[Topic[Any], dict[Subject, None]] = {}
    for pair in given:
        if not (isinstance(pair, tuple) and len(pair) == 2):
            raise TypeError(f"{what} is an iterable of (topic, subject); {type(pair).__name__} is none")
        topic, named = pair
        check_topic(topic)
        subject = subject_of(named)
        if not subject.key:
            raise ValueError(f"all keys of a namespace cannot be {what}ed: {what} each by its name")
        subjects.setdefault(topic, {})[subject] = None
    return {**subjects}


def _add(groups: dict[Subject, list[Event[Any]]], subject: Subject, event: Event[Any]) -> None:
    group = groups.get(subject)
    if group is None:
        groups[subject] = [event]
    else:
        group.append(event)


def plain_subject_of(payload: Any) -> Subject:
    """The same as `_subject_of`, but perhaps as a plain tuple, which takes less time and finds the same in a dict."""
    try:
        given = payload.subject
    except AttributeError:
        return _subject_of(payload)
    if type(given) is str:
        return cast("Subject", (given, "default", "default"))
    if type(given) is Subject:
        key, namespace, partition = given
        if type(key) is str and type(namespace) is str and type(partition) is str:
            return given
    return _subject_of(payload)


def _subject_of(payload: Any) -> Subject:
    """The subject that the payload gives; `InvalidCommitError` if it gives none.

    What a property raises passes through.
    """
    try:
        given = payload.subject
    except AttributeError as error:
        defined = getattr_static(payload, "subject", None)
        if defined is not None and not ismemberdescriptor(defined):  # it is there, and its own body raised
            raise
        raise InvalidCommitError(f"a payload of type {type(payload).__name__} has no subject") from error
    try:
        return subject_of(given)
    except TypeError as error:
        raise InvalidCommitError(f"in a payload of type {type(payload).__name__}: {error}") from None


def delivery(events: Sequence[Event[Any]], before: Event[Any] | None = None) -> Event[Any]:
    """What the readers of one feed get of these events of a commit: one event.

    A batch is shared with the feed `before` if that one got the very same events.
    """
    first = events[0]
    if len(events) == 1:
        return first
    if before is not None and _is_of(before, events):
        return before
    return Event(first.topic, first.index, PayloadEvents(events), mark=first.mark)


def _is_of(batch: Event[Any], events: Sequence[Event[Any]]) -> bool:
    items = batch.events
    return len(items) == len(events) and all(map(is_, items, events))
