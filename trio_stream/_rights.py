"""What one reader may see of an event: its authorizer first, then its filter. Pure, no event loop.

An event can say what its payload replaces, its *previous* one.
A reader that had that, and may not have what replaces it, gets the *withdrawal* in its place: `previous.withdrawn()`.

| the previous payload | the new payload | it gets        |
|----------------------|-----------------|----------------|
| any                  | shown           | the new one    |
| shown                | not shown       | the withdrawal |
| not shown, or none   | not shown       | nothing        |
| shown                | is a delete     | the delete     |
| not shown            | is a delete     | nothing        |

A payload is *shown* if the authorizer may read it and the filter lets it through.
The filter is only asked about what is readable.
A *delete* is a payload that equals `previous.withdrawn()`: nobody is asked who may see it.
If `previous` itself equals that, nothing was there.

So whoever has filtered all along, has come back, or begins now, agrees on the state at every index (D19).

`previous` is never handed out.
What lies in the feeds are events without it; what they replace lies beside the history of their topic, by the identity
of the event, as long as the history keeps that.
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, Final, TypeAlias, cast

from ._events import Event, Framing, PayloadEvents, is_permitted, is_readable

Filter: TypeAlias = Callable[[Any], bool]


class Replacement:
    """That an event, which it keeps alive, replaces a payload."""

    __slots__ = ("_was_there", "_withdrawn", "event", "previous")

    def __init__(self, event: Event[Any], previous: Any) -> None:
        self.event: Event[Any] = event
        self.previous: Any = previous
        self._withdrawn: Event[Any] | None = None  # as long as nobody has asked
        self._was_there: bool = True

    @property
    def withdrawn(self) -> Event[Any]:
        """What a reader gets that had the previous payload, and may not have the new one; the event, if it is a delete.

        Raises what the payload raises.
        """
        if self._withdrawn is None:
            event, gone = self.event, withdrawn(self.previous)
            is_delete = bool(event.payload == gone)
            self._was_there = bool(self.previous != gone)
            self._withdrawn = event if is_delete else Event(event.topic, event.index, gone, mark=event.mark)
        return self._withdrawn

    @property
    def was_there(self) -> bool:
        """Whether the previous payload is more than that something is gone, as that of a key which comes again."""
        self.withdrawn  # noqa: B018 - finds out
        return self._was_there


Replaced: TypeAlias = Mapping[int, Replacement]
"""{the `id` of an event: what that replaces}; the events are alive as long as they are here."""

NOTHING: Final[Replaced] = MappingProxyType({})


def found(events: Iterable[Event[Any]], replaced: Iterable[Replaced]) -> list[Replacement]:
    """What these replace, of whatever kind they are."""
    singles = [each for event in events for each in event.events]
    return [known[id(each)] for known in replaced if known for each in singles if id(each) in known]


class Rights:
    """Of one reader, and how much it did not get for them."""

    __slots__ = ("asks_one", "authorizer", "hidden", "where", "withdrawn")

    def __init__(self, authorizer: Any, where: Filter | None) -> None:
        """`authorizer` None reads everything, `where` None lets everything through."""
        self.authorizer: Any = authorizer
        self.where: Filter | None = where
        self.asks_one: bool = authorizer is None or where is None
        # Events that it did not get, and those among what it got that are withdrawals.
        self.hidden: int = 0
        self.withdrawn: int = 0

    def shown(self, event: Event[Any], replaced: Replaced) -> Event[Any] | None:
        """What the reader gets of this: the shared event itself, another one, or None.

        Raises what the authorizer, the filter or a payload raises.
        """
        kind = type(event.payload)
        if kind is not PayloadEvents:
            if kind is Framing:
                return event
            if replaced and (replacement := replaced.get(id(event))) is not None:
                return self._of_replacing(event, replacement)
            if self.where is None:  # the common case, without a call
                return event if is_readable(event.payload, self.authorizer) else None
            return event if self.shows(event.payload) else None
        batch = cast("PayloadEvents[Any]", event.payload).items
        # Looked up before anybody is asked: who is asked may publish, and this commit and what it replaces be dropped.
        replacements = [replaced.get(id(each)) for each in batch]
        shown = list(map(self._of_one, batch, replacements))
        items = [each for each in shown if each is not None]
        if not items:
            return None
        if all(mine is its for mine, its in zip(shown, batch, strict=True)):
            return event
        return Event(event.topic, event.index, PayloadEvents(items), mark=event.mark)

    def count(self, event: Event[Any], shown: Event[Any] | None) -> None:
        """The reader has moved past this event and got that of it, which is not the same."""
        if shown is None and type(event.payload) is not PayloadEvents:
            self.hidden += 1
            return
        its = event.events
        got = () if shown is None else shown.events
        self.hidden += len(its) - len(got)
        self.withdrawn += len({*map(id, got)} - {*map(id, its)})

    def shows(self, payload: Any) -> bool:
        """Whether the reader may read this payload, and wants it."""
        if self.authorizer is not None and not is_readable(payload, self.authorizer):
            return False
        if self.where is None:
            return True
        answer: object = self.where(payload)
        return is_let_through(payload, answer) if type(answer) is not bool else answer

    def is_yes(self, payload: Any, answer: object) -> bool:
        """What an answer of whatever type says, where only one of the two is asked."""
        return is_permitted(payload, answer) if self.where is None else is_let_through(payload, answer)

    def across(self, first: Event[Any], last: Event[Any], replaced: Replaced) -> Event[Any] | None:
        """What a reader gets of `last` that has had what `first` replaced, and nothing between them.

        `first` is the first event of the row of which it is known what it replaces, if there is one.
        """
        before, after = replaced.get(id(first)), replaced.get(id(last))
        is_delete = after is not None and after.withdrawn is last
        if not is_delete and self.shows(last.payload):
            return last
        if before is None or not before.was_there or not self.shows(before.previous):
            return None
        if is_delete and after is not None and (after is before or self.shows(after.previous)):
            return last
        # A delete of what the reader was never shown may have something of that in it.
        return Event(last.topic, last.index, withdrawn(before.previous), mark=last.mark)

    def _of_one(self, event: Event[Any], replacement: Replacement | None) -> Event[Any] | None:
        if replacement is None:
            return event if self.shows(event.payload) else None
        return self._of_replacing(event, replacement)

    def _of_replacing(self, event: Event[Any], replacement: Replacement) -> Event[Any] | None:
        if replacement.withdrawn is not event and self.shows(event.payload):
            return event
        if not replacement.was_there:
            return None
        return replacement.withdrawn if self.shows(replacement.previous) else None


def is_let_through(payload: Any, answer: object) -> bool:
    """What a filter says of a payload by an answer of whatever type; `TypeError` if it is to be awaited."""
    if isinstance(answer, Awaitable):  # which would always be true
        raise TypeError(
            f"where of a subscription is not to be async: it was asked of {type(payload).__name__}"
        )
    return bool(answer)


def withdrawn(payload: Any) -> Any:
    """What the payload is when it is withdrawn; `TypeError` if that would have to be awaited."""
    gone = payload.withdrawn()
    if isinstance(gone, Awaitable):
        raise TypeError(f"withdrawn of {type(payload).__name__} is not to be async")
    return gone
