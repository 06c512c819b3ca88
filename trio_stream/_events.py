"""The values that travel: topics, subjects, payloads and events. All of them are immutable."""

import enum
from collections.abc import Awaitable, Iterable, Iterator, Sequence
from dataclasses import KW_ONLY, FrozenInstanceError, dataclass, field
from typing import (
    TYPE_CHECKING,
    Any,
    Final,
    Generic,
    NamedTuple,
    NoReturn,
    Protocol,
    Self,
    cast,
    final,
    overload,
)

from typing_extensions import TypeVar, override

T = TypeVar("T")
P = TypeVar("P", default=Any)
P_co = TypeVar("P_co", covariant=True, default=Any)


def _refuse(self: object, name: str, *_: object) -> None:
    raise FrozenInstanceError(f"{type(self).__name__} is immutable: {name!r} cannot be changed")


def frozen(cls: type[T]) -> type[T]:
    """Refuses to set any attribute, as a frozen dataclass does.

    Before Python 3.13 the method that a slotted one gets for that fails with a `TypeError` where it is asked for
    what is no field, which `typing` does when a class is called as `Topic[Health]("health")`.
    """
    type.__setattr__(cls, "__setattr__", _refuse)
    type.__setattr__(cls, "__delattr__", _refuse)
    return cls


@frozen
@dataclass(frozen=True, slots=True)
class Topic(Generic[P]):
    """A kind of state, typed by its payload: `Topic[ServiceHealth]("service-health")`.

    Two topics of the same name are the same topic, also where one is of a subclass.
    """

    name: str

    @override
    def __init_subclass__(cls) -> None:
        super(Topic, cls).__init_subclass__()  # not super(): `slots` makes this class anew
        # `@dataclass` on a subclass would write others, by which its topics differ from those of the same name.
        type.__setattr__(cls, "__eq__", Topic.__eq__)
        type.__setattr__(cls, "__hash__", Topic.__hash__)

    def __post_init__(self) -> None:
        if not isinstance(self.name, str):
            raise TypeError(f"a topic's name is a string, not {type(self.name).__name__}")
        if not self.name:
            raise ValueError("a topic's name must not be empty")

    @override
    def __eq__(self, other: object) -> bool:
        return self.name == other.name if isinstance(other, Topic) else NotImplemented

    @override
    def __hash__(self) -> int:
        return hash(self.name)

    @override
    def __str__(self) -> str:
        return self.name


class Subject(NamedTuple):
    """The slice of a topic that a subscriber wants.

    A blank key in a request means every key of the namespace.
    Keys are compared as they are: normalise the case in your payload if your store does.
    """

    key: str = ""
    namespace: str = "default"
    partition: str = "default"

    @override
    def __str__(self) -> str:
        return f"{self.partition}/{self.namespace}/{self.key}"


class Payload(Protocol):
    """What an application puts into events.

    It has a `subject`, an attribute or a property: the slice of the topic that it belongs to; a string means
    `Subject(that)`.
    A payload is shared by all subscribers and must not change once it has been published.
    """

    __slots__ = ()

    if TYPE_CHECKING:  # a property that is there would keep dataclasses that inherit from having such a field

        @property
        def subject(self) -> Subject | str:
            """The slice of the topic that this payload belongs to; a string means `Subject(that)`."""
            ...

    def has_read_permission(self, authorizer: Any, /) -> bool:
        """Whether `authorizer` may see this payload; only asked for subscriptions that were given one.

        Classes that inherit from `Payload` refuse by an error until they say otherwise, so that nothing
        leaks because somebody forgot.
        """
        raise NotImplementedError(f"{type(self).__name__} does not say who may read it")

    def withdrawn(self) -> Self:
        """The payload that says that this one is gone; it is equal to the one that is published for a delete.

        A subscriber gets it that could see this payload, and may not see the one that replaces it.
        So it has nothing in it that such a subscriber may not know.

        Only called on the `previous` of an event, and only for subscriptions with an authorizer or a filter.
        Not async.
        Classes that inherit from `Payload` raise `NotImplementedError` until they define it.
        """
        return _refuse_to_withdraw(
            self
        )  # a body that raises would make every class abstract that does not need it


def _refuse_to_withdraw(payload: object) -> NoReturn:
    raise NotImplementedError(f"{type(payload).__name__} does not say what it is when it is withdrawn")


class Framing(enum.Enum):
    """The payload of an event that is about the stream, not about the state."""

    END_OF_SNAPSHOT = "end-of-snapshot"
    NEW_SNAPSHOT_TO_FOLLOW = "new-snapshot-to-follow"


@dataclass(frozen=True, slots=True)
class CloseSubscriptions:
    """The payload of `close_subscription_event`; never delivered."""

    token_secret_ids: frozenset[str]

    @override
    def __repr__(self) -> str:
        return f"<CloseSubscriptions tokens={len(self.token_secret_ids)}>"  # they are secret


@frozen
@dataclass(frozen=True, slots=True, init=False)
class Event(Generic[P_co]):
    """What a subscriber is handed.

    `index` is that of the commit; of the snapshot for end-of-snapshot; 0 for new-snapshot-to-follow.
    Inside a snapshot it is what its handler gave, mostly that of the commit which the state is from; how far a
    subscriber has come is `Subscription.index`.
    Several events of one commit come as one event whose payload is a `PayloadEvents`; `events` has
    them one by one in every case.
    """

    topic: Topic[Any]
    index: int
    payload: "P_co | PayloadEvents[P_co] | Framing"
    _: KW_ONLY
    previous: P_co | None = field(default=None, repr=False, compare=False)
    """The payload that this one replaces; None if nothing was there, as after a delete, or if it is not known.

    It is of the same subject, and has `Payload.withdrawn`.
    It is for the publisher only: in what a subscriber is handed it is always None.
    """
    mark: str = field(default="", repr=False)
    """What the store wrote with this commit, and with no other; "" if nothing."""

    def __init__(
        self,
        topic: Topic[Any],
        index: int,
        payload: "P_co | PayloadEvents[P_co] | Framing",
        *,
        previous: P_co | None = None,
        mark: str = "",
    ) -> None:
        # In half of the time that what `dataclass` writes for a frozen class takes.
        _set_topic(self, topic)
        _set_index(self, index)
        _set_payload(self, payload)
        _set_previous(self, previous)
        _set_mark(self, mark)

    @property
    def is_end_of_snapshot(self) -> bool:
        """Whether the snapshot is complete; what follows are changes as they occur."""
        return self.payload is END_OF_SNAPSHOT

    @property
    def is_new_snapshot_to_follow(self) -> bool:
        """Whether the state held so far is stale and must be dropped; a snapshot follows."""
        return self.payload is NEW_SNAPSHOT_TO_FOLLOW

    @property
    def is_conflated(self) -> bool:
        """Whether this stands for all commits up to its index: a batch of the newest event of each row.

        Only with `on_lag="conflate"`.
        """
        kind = type(self.payload)
        return kind is PayloadEvents and cast("PayloadEvents[P_co]", self.payload).is_conflated

    @property
    def is_framing(self) -> bool:
        """Whether this is about the stream and carries no state."""
        return isinstance(self.payload, Framing)

    @property
    def framing(self) -> Framing | None:
        """Which framing event this is; None for one that carries state.

        With `match` a type checker finds the kind that was forgotten.
        """
        return self.payload if isinstance(self.payload, Framing) else None

    @property
    def events(self) -> "tuple[Event[P_co], ...]":
        """The events of the commit one by one, in order: 1 for a plain event, n for a batch, 0 for framing."""
        kind = type(self.payload)
        if kind is PayloadEvents:
            return cast("PayloadEvents[P_co]", self.payload).items
        return () if kind is Framing else (self,)

    @property
    def payloads(self) -> "tuple[P_co, ...]":
        """The payloads of `events`."""
        return tuple(cast("P_co", event.payload) for event in self.events)


_set_topic, _set_index, _set_payload, _set_previous, _set_mark = (
    Event.__dict__[name].__set__ for name in ("topic", "index", "payload", "previous", "mark")
)


@final  # so that its type tells what it is; `isinstance` takes long with what is an abstract collection
@frozen
class PayloadEvents(Sequence[Event[P_co]]):
    """The events of one commit for one subscription, in the order they were published.

    If `is_conflated`, they are of several commits: the newest event of each row, in the order of their indexes.
    Immutable; a batch is made by the library and must not be published.
    """

    __slots__ = ("is_conflated", "items")

    items: tuple[Event[P_co], ...]
    is_conflated: bool

    def __init__(self, items: Iterable[Event[P_co]], is_conflated: bool = False) -> None:
        object.__setattr__(self, "items", tuple(items))
        object.__setattr__(self, "is_conflated", is_conflated)

    @override
    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.items, self.is_conflated)

    @overload
    def __getitem__(self, index: int) -> Event[P_co]: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Event[P_co]]: ...
    @override
    def __getitem__(self, index: int | slice) -> Event[P_co] | Sequence[Event[P_co]]:
        return self.items[index]

    @override
    def __len__(self) -> int:
        return len(self.items)

    @override
    def __iter__(self) -> Iterator[Event[P_co]]:
        return iter(self.items)

    @override
    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, PayloadEvents)
            and self.items == other.items
            and self.is_conflated == other.is_conflated
        )

    @override
    def __hash__(self) -> int:
        return hash(self.items)

    @override
    def __repr__(self) -> str:
        return f"PayloadEvents({list(self.items)!r})"

    @property
    def subject(self) -> Subject:
        """Always a `TypeError`: the events of a batch may have different subjects."""
        raise TypeError("a batch has no subject and must not be published")

    def has_read_permission(self, authorizer: Any, /) -> bool:
        """Whether `authorizer` may read at least one of the items."""
        return any(is_readable(event.payload, authorizer) for event in self.items)

    def readable_by(self, authorizer: Any, /) -> "PayloadEvents[P_co] | None":
        """A new batch of the items that `authorizer` may read, in order; None if there are none."""
        items = tuple(event for event in self.items if is_readable(event.payload, authorizer))
        return PayloadEvents(items, self.is_conflated) if items else None


def size(event: Event[Any]) -> int:
    """How many events of a commit there are in one that is handed out, of whatever kind; at least 1."""
    payload = event.payload
    return len(payload.items) if type(payload) is PayloadEvents else 1


END_OF_SNAPSHOT: Final = Framing.END_OF_SNAPSHOT
NEW_SNAPSHOT_TO_FOLLOW: Final = Framing.NEW_SNAPSHOT_TO_FOLLOW


def is_readable(payload: Any, authorizer: Any) -> bool:
    """Whether `authorizer` may see this payload."""
    answer: object = payload.has_read_permission(authorizer)
    return answer if type(answer) is bool else is_permitted(payload, answer)


def is_permitted(payload: Any, answer: object) -> bool:
    """What a payload's answer of whatever type says; `TypeError` if it is to be awaited."""
    if isinstance(answer, Awaitable):  # which would always be true
        raise TypeError(f"has_read_permission of {type(payload).__name__} is not to be async")
    return bool(answer)


_CLOSE: Final = Topic[Any]("close-subscription")


def close_subscription_event(token_secret_ids: Iterable[str]) -> Event[Any]:
    """An event that, when it is published, closes every subscription made with one of these tokens.

    It takes no index, is handled before the other events of its commit and is never delivered.
    A resume with one of the tokens from the index of its commit, or from an older one, is stale; if it is published
    alone, that is the newest index of then.
    Duplicates and tokens that nobody uses are fine.
    """
    return Event(_CLOSE, 0, CloseSubscriptions(token_set(token_secret_ids)))


def token_set(token_secret_ids: Iterable[str]) -> frozenset[str]:
    """The tokens without duplicates; refuses a single string, which would be read letter by letter."""
    if isinstance(token_secret_ids, str) or not isinstance(token_secret_ids, Iterable):
        raise TypeError(f"token_secret_ids is an iterable of strings, not {type(token_secret_ids).__name__}")
    tokens = tuple(token_secret_ids)
    for kind in set(map(type, tokens)):
        if not issubclass(kind, str):
            raise TypeError(f"a token is a string, not {kind.__name__}")
    return frozenset(tokens)


def subject_of(given: object) -> Subject:
    """The subject that a payload gives, perhaps as a string."""
    if isinstance(given, str):
        return Subject(given)
    if not isinstance(given, Subject):
        raise TypeError(f"a subject is a Subject or a string, not {type(given).__name__}")
    parts: tuple[object, object, object] = given
    key, namespace, partition = parts
    if isinstance(key, str) and isinstance(namespace, str) and isinstance(partition, str):
        return given
    raise TypeError("the parts of a subject are strings")


def check_topic(topic: object) -> None:
    """Raises unless it is one."""
    if not isinstance(topic, Topic):
        raise TypeError(f"a topic is a Topic, not {type(topic).__name__}")
