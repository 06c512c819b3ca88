"""Folds: how received events become the mapping that a view shows.

The default keeps one payload for each key.
"""

import inspect
from collections.abc import Callable, Hashable, Mapping, Sequence
from operator import attrgetter
from typing import Any, Final, Protocol, TypeAlias, cast

from typing_extensions import TypeVar, override

from trio_stream import ALL, Event, PayloadEvents, Subject, SubscribeRequest, Topic

from ._table import GONE, Draft, Gone, Table

P = TypeVar("P", default=Any)
P_contra = TypeVar("P_contra", contravariant=True, default=Any)
K = TypeVar("K", bound=Hashable, default=Any)
K_co = TypeVar("K_co", bound=Hashable, covariant=True, default=Any)
V = TypeVar("V", default=Any)
V_co = TypeVar("V_co", covariant=True, default=Any)


Key: TypeAlias = Callable[[P], K] | Callable[[Topic[Any], P], K]
"""Tells the key of a payload, or of a topic and a payload."""

_KEY: Final = attrgetter("key")


class Reducer(Protocol[P_contra, K, V_co]):
    """Folds events into a mapping; synchronous, and with no effect but on itself."""

    def reset(self) -> None:
        """A snapshot begins: forget everything."""
        ...

    def apply(self, events: "Sequence[Event[P_contra]]", /) -> Mapping[K, V_co]:
        """Folds these events, none of which is framing, and returns the mapping after them.

        It is called for the parts of a snapshot, and once without events when the snapshot is whole.
        What it returns from then on is shown: it must not change any more.
        A `Table` is a mapping of which a changed copy is cheap.
        """
        ...


class KeyedReducer(Reducer[P, K, P]):
    """One payload for each key, the newest; deletions remove it.

    `key` tells the key of a payload, `is_delete` whether it is the removal of that key.
    The defaults are the payload's attributes of these names.
    A `key` that cannot be called with one argument, but with two, is given the topic and the payload.
    Raises `TypeError` for one that can be called with neither.
    """

    def __init__(
        self, key: Key[P, K] = _KEY, is_delete: Callable[[P], bool] = attrgetter("is_delete")
    ) -> None:
        self._takes_topic = takes_topic(key)
        self._key: Callable[..., K] = key
        self._is_delete = is_delete
        # The snapshot while it comes in.
        self._snapshot: Draft[K, P] | None = Draft()
        # Empty meanwhile.
        self._table: Table[K, P] = Table()

    @override
    def reset(self) -> None:
        self._snapshot = Draft()
        self._table = Table()

    @override
    def apply(self, events: Sequence[Event[P]], /) -> Mapping[K, P]:
        changes: dict[K, P | Gone] = {}
        self._collect(events, changes)
        if self._snapshot is None:
            self._table = self._table.changed(changes)
        else:
            self._snapshot.update(changes)
            if not events:
                self._table = Table.of_draft(self._snapshot)
                self._snapshot = None
        return self._table

    def _collect(self, events: Sequence[Event[P]], changes: dict[K, P | Gone]) -> None:
        """The newest payload of each key, or GONE where that is a removal."""
        key_of, is_delete, takes_topic = self._key, self._is_delete, self._takes_topic
        single: Event[P]
        for event in events:
            batch = event.payload
            # Asking for the very type is faster than isinstance(), which asks an abstract class like this one.
            for single in batch.items if type(batch) is PayloadEvents else (event,):
                payload: Any = single.payload
                try:
                    key = key_of(single.topic, payload) if takes_topic else key_of(payload)
                    changes[key] = GONE if is_delete(payload) else payload
                except Exception as error:
                    error.add_note(f"while the view folded {single!r}")
                    raise


def takes_topic(key: object) -> bool:
    """Whether it is called with a topic and a payload: it can be, and not with one argument. Raises `TypeError`."""
    if not callable(key):
        raise TypeError(f"key is called with a payload, or with a topic and a payload; {key!r} cannot be")
    try:
        signature = inspect.signature(key)
    except (TypeError, ValueError):  # some that are written in C
        return False
    for count in (1, 2):
        try:
            signature.bind(*range(count))
        except TypeError:
            continue
        return count == 2
    raise TypeError(f"key is called with a payload, or with a topic and a payload; {key!r} takes neither")


def default_key(request: SubscribeRequest[Any]) -> Key[Any, Any]:
    """Of the payloads of this request, so that no two of them that are not about the same have one key."""
    topics, _, _, namespaces, partitions = map(set, zip(*request.interests, strict=True))
    if ALL in partitions or len(partitions) > 1:
        return _key_anywhere
    if ALL in namespaces or len(namespaces) > 1 or len(topics) > 1:
        return _key_in_namespace
    return _KEY


def _key_in_namespace(topic: Topic[Any], payload: Any) -> tuple[Topic[Any], str, Any]:
    return topic, _subject_of(payload).namespace, payload.key


def _key_anywhere(topic: Topic[Any], payload: Any) -> tuple[Topic[Any], str, str, Any]:
    subject = _subject_of(payload)
    return topic, subject.partition, subject.namespace, payload.key


def _subject_of(payload: Any) -> Subject:
    subject: Subject | str = payload.subject
    return Subject(subject) if isinstance(subject, str) else subject


def keyed(
    request: SubscribeRequest[Any], key: Key[Any, K] | None, is_delete: Callable[[Any], bool]
) -> KeyedReducer[Any, K]:
    """The reducer of a view that was given no other."""
    return KeyedReducer(cast("Key[Any, K]", default_key(request)) if key is None else key, is_delete)
