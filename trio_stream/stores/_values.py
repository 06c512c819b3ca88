"""What a store holds and hands out: names, operations, commits, records, and what they may be made of."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple, Self, TypeAlias, assert_never, get_args

from typing_extensions import override

from trio_stream import Cursor, Payload, Subject, Topic

JSON: TypeAlias = "bool | int | float | str | Sequence[JSON] | Mapping[str, JSON] | None"
"""None, bool, int, finite float, str, list, dict with string keys; a tuple comes back as a list."""

MAX_DEPTH: Final = 200
"""How many lists and objects a value may have one in the other; far below what JSON readers can take."""


_Kind: TypeAlias = Literal["put", "delete"]
_KINDS: Final = get_args(_Kind)


class Name(NamedTuple):
    """Where a value is: what `expect` is about."""

    topic: str
    key: str
    namespace: str = "default"

    @override
    def __str__(self) -> str:
        """For messages; what is not printable is escaped."""
        return f"key {self.key!r} in namespace {self.namespace!r} of topic {self.topic!r}"


@dataclass(frozen=True, slots=True)
class Put:
    """Sets a key to a value, whether or not it was there.

    Topic, key and namespace are not empty (a blank key means every key), hold no NUL and no lone surrogate.
    The value is looked at when it is committed: do not change it before that has returned.
    """

    topic: str
    key: str
    value: JSON
    namespace: str = "default"

    def __post_init__(self) -> None:
        _check_name(self.topic, self.key, self.namespace)

    @property
    def name(self) -> Name:
        """What is put."""
        return Name(self.topic, self.key, self.namespace)


@dataclass(frozen=True, slots=True)
class Delete:
    """Removes a key; a key that is not there stays away, and the commit counts all the same."""

    topic: str
    key: str
    namespace: str = "default"

    def __post_init__(self) -> None:
        _check_name(self.topic, self.key, self.namespace)

    @property
    def name(self) -> Name:
        """What is deleted."""
        return Name(self.topic, self.key, self.namespace)


Operation: TypeAlias = Put | Delete


@dataclass(frozen=True, slots=True)
class Commit:
    """What one `Store.commit` has done, in the order in which it was asked for.

    Where two operations have one name the later one holds; readers that apply them in order agree.
    """

    index: int
    operations: tuple[Operation, ...]


@dataclass(frozen=True, slots=True)
class Entry:
    """A value and the index of the commit that put it there, for `expect`."""

    value: JSON
    index: int


class EpochIndex(int):
    """An index that knows the epoch in which it was read, so that `expect` can tell when that is over."""

    epoch: str

    def __new__(cls, index: int, epoch: str) -> Self:
        """The index, as of the epoch."""
        self = super().__new__(cls, index)
        self.epoch = epoch
        return self

    @override
    def __reduce__(self) -> tuple[type[Self], tuple[int, str]]:
        return type(self), (int(self), self.epoch)


@dataclass(frozen=True, slots=True)
class Head:
    """How far a store has come."""

    index: int
    """The newest commit; 0 before the first."""
    floor: int
    """The newest commit that `changes` can no longer give; 0 if it has them all."""
    epoch: str
    """The timeline that both indexes belong to."""


@dataclass(frozen=True, slots=True)
class Record(Payload):
    """The payload of a store's events: a key and its new value, or that it was deleted and has none.

    One record is shared by all subscribers: its value must not be changed.
    The read permission is up to the authorizer, a callable that is given the record.
    """

    key: str
    value: JSON = None
    operation: _Kind = "put"
    namespace: str = "default"

    def __post_init__(self) -> None:
        if self.operation not in _KINDS:
            raise ValueError(f"the operation is one of {_KINDS}, not {self.operation!r}")
        if self.value is not None and self.is_delete:
            raise ValueError(f"a delete has no value, not {self.value!r}")

    @property
    @override
    def subject(self) -> Subject:
        """The key in its namespace."""
        return Subject(self.key, self.namespace)

    @property
    def is_delete(self) -> bool:
        """Whether the key is gone; `value` is None then."""
        match self.operation:
            case "put":
                return False
            case "delete":
                return True
            case _:
                assert_never(self.operation)

    @override
    def has_read_permission(self, authorizer: Any, /) -> bool:
        """What `authorizer(record)` says."""
        return bool(authorizer(self))


def topic(name: str) -> Topic[Record]:
    """The topic under which the operations with this topic name are published."""
    return Topic[Record](name)


def check_operations(operations: Sequence[Operation]) -> None:
    """Raises for what no engine should be asked to commit."""
    if not operations:
        raise ValueError("a commit without operations would have an index that stands for no change")
    for operation in operations:
        if not isinstance(operation, Put | Delete):
            raise TypeError(f"an operation is a Put or a Delete, not {operation!r}")


def check_expected(expect: Mapping[Any, int]) -> dict[Name, int]:
    """The same with every plain tuple made a `Name`; raises for what no engine should be asked to look for."""
    expected: dict[Name, int] = {}
    for key, index in expect.items():
        if not (isinstance(key, tuple) and 2 <= len(key) <= 3):
            raise TypeError(f"expect has a Name for each index, not {key!r}")
        name = Name(*key)
        _check_name(*name)
        check_index(index)
        if expected.setdefault(name, index) != index:
            raise ValueError(f"{name} is expected twice, with indexes {expected[name]} and {index}")
    return expected


def check_index(index: int) -> None:
    """Raises unless `index` is a whole number from 0."""
    if isinstance(index, bool) or not isinstance(index, int):
        raise TypeError(f"an index is an integer, not {index!r}")
    if index < 0:
        raise ValueError(f"an index is not negative: {index}")


def check_position(after: int | Cursor) -> tuple[int, str | None]:
    """The index, and the epoch that it must be of; None if it is to be trusted."""
    if isinstance(after, Cursor):
        return after.index, after.epoch
    check_index(after)
    return after, None


def _check_name(topic: str, key: str, namespace: str) -> None:
    if not (_is_plain(topic) and _is_plain(key) and (namespace == "default" or _is_plain(namespace))):
        _check_part("topic", topic)
        _check_part("key", key)
        _check_part("namespace", namespace)


def _is_plain(text: object) -> bool:
    """Whether nothing can be wrong with it: the common case, in a quarter of the time."""
    return type(text) is str and text != "" and text.isascii() and "\0" not in text


def _check_part(kind: str, text: object) -> None:
    if not isinstance(text, str):
        raise TypeError(f"a {kind} is a string, not {text!r}")
    if not text:
        raise ValueError(f"a {kind} must not be empty")
    if "\0" in text:
        raise ValueError(f"a {kind} must not contain NUL: {text!r}")
    text.encode()  # UnicodeEncodeError, a ValueError, for what no store can hold
