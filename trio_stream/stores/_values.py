"""What a store holds and hands out: names, operations, commits, records, and what they may be made of."""

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from hashlib import blake2b
from typing import Any, Final, Literal, NamedTuple, Self, TypeAlias, assert_never, get_args

from typing_extensions import override

from trio_stream import Cursor, Payload, Subject, SubscribeRequest, Topic

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
    _: KW_ONLY
    final: bool = False
    """Whether it is the last value of its key: subscriptions of just this key end with it.

    Another `Put` to the key is a `ConflictError` then; a `Delete` frees it.
    """
    previous: JSON = field(default=None, compare=False)
    """Of a `Commit` that was read: the value that this one has replaced, None if there was none. For rights only."""
    replaces: bool = field(default=False, compare=False)
    """Of a `Commit` that was read: whether there was a value before; it may have been None."""

    def __post_init__(self) -> None:
        _check_name(self.topic, self.key, self.namespace)
        if not isinstance(self.final, bool):
            raise TypeError(f"final is True or False, not {self.final!r}")

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
    _: KW_ONLY
    previous: JSON = field(default=None, compare=False)
    """Of a `Commit` that was read: the value that is gone. For rights only."""
    replaces: bool = field(default=False, compare=False)
    """Of a `Commit` that was read: whether it is known what is gone. Logs of the first edition do not say."""

    def __post_init__(self) -> None:
        _check_name(self.topic, self.key, self.namespace)

    @property
    def name(self) -> Name:
        """What is deleted."""
        return Name(self.topic, self.key, self.namespace)


@dataclass(frozen=True, slots=True)
class Revoke:
    """Closes every subscription made with this token, at every publisher of the store, and makes its cursors stale.

    That comes before the other operations of its commit, wherever in the commit it stands.
    The store keeps a digest of the token, and never the token.
    """

    token: str = field(repr=False)

    def __post_init__(self) -> None:
        if not isinstance(self.token, str):
            raise TypeError(f"a token is a string, not {type(self.token).__name__}")
        _check_token(self.token)


Change: TypeAlias = Put | Delete
Operation: TypeAlias = Put | Delete | Revoke


@dataclass(frozen=True, slots=True)
class Commit:
    """What one `Store.commit` has done.

    Two are equal if they have the same index and have done the same; the mark is not compared.
    """

    index: int
    operations: tuple[Change, ...]
    """In the order in which they were asked for, each with what it replaces.

    Of several with one name there is the last; a delete of a key that was not there is left out.
    """
    mark: str = field(default="", compare=False)
    """Random characters that tell this commit from any other with the same index, in another copy of the store.

    "" where the engine has none, or does not know it: then the index is trusted.
    """
    revoked: tuple[str, ...] = ()
    """The digests of the tokens that it revokes; see `token_digest`."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A value and the index of the commit that put it there, for `expect`."""

    value: JSON
    index: int
    final: bool = False
    """Whether it is the last value of its key; see `Put.final`."""


class EpochIndex(int):
    """An index that knows the epoch in which it was read, so that `expect` can tell when that is over.

    That of a commit or of a snapshot has its mark, too.
    """

    epoch: str
    mark: str

    def __new__(cls, index: int, epoch: str, mark: str = "") -> Self:
        """The index, as of the epoch."""
        self = super().__new__(cls, index)
        self.epoch = epoch
        self.mark = mark
        return self

    @property
    def cursor(self) -> Cursor:
        """The same as one value."""
        return Cursor(int(self), self.epoch, self.mark)

    @override
    def __reduce__(self) -> tuple[type[Self], tuple[int, str, str]]:
        return type(self), (int(self), self.epoch, self.mark)


@dataclass(frozen=True, slots=True)
class Head:
    """How far a store has come."""

    index: int
    """The newest commit; 0 before the first."""
    floor: int
    """The newest commit that `changes` can no longer give; 0 if it has them all."""
    epoch: str
    """The timeline that both indexes belong to."""
    mark: str = ""
    """That of the newest commit; see `Commit.mark`."""
    unmarked: int = field(default=0, compare=False)
    """Up to this commit the store was of an edition without marks, whose clients have cursors without them."""

    @property
    def cursor(self) -> Cursor:
        """The newest commit as one value, to follow the changes from there."""
        return Cursor(self.index, self.epoch, self.mark)


@dataclass(frozen=True, slots=True)
class Limits:
    """What one commit may have at most; more is a `LimitExceededError`, and nothing is sent."""

    operations: int
    commit: int
    """Bytes of JSON that the operations of a commit are, all together."""
    key: int
    """Bytes of a topic, of a namespace, and of a key, each, in UTF-8."""
    value: int
    """Bytes of the JSON of one value."""


@dataclass(frozen=True, slots=True)
class Revocations:
    """The tokens that were revoked lately, for a publisher that begins.

    Compaction does not touch them. Of what is forgotten the floor remains.
    """

    salt: bytes
    """The key of `token_digest` for this store, at most 64 bytes."""
    floor: int = 0
    """A cursor at or below this index may be from before a revocation that is forgotten: it is good for no token."""
    newest: Mapping[str, int] = field(default_factory=dict)
    """{digest of a token: the index of the commit that revoked it last}, oldest first, at most `MOST_REVOKED`."""


MOST_REVOKED: Final = 65_536
"""Revocations that a store remembers."""


def token_digest(token: str, salt: bytes) -> str:
    """What a store keeps of a token that is revoked: BLAKE2b (RFC 7693) of 16 bytes with the salt as its key, in hex.

    Nobody can find the token who has only the store, if it is long enough not to be guessed.
    One with half of a surrogate pair is a `ValueError`, which does not tell the token.
    """
    _check_token(token)
    return blake2b(token.encode(), digest_size=16, key=salt).hexdigest()


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

    @override
    def withdrawn(self) -> "Record":
        """The delete of this key: what a reader gets who may no longer see what becomes of it."""
        return Record(self.key, None, "delete", self.namespace)


def topic(name: str) -> Topic[Record]:
    """The topic under which the operations with this topic name are published."""
    return Topic[Record](name)


def check_operations(operations: Sequence[Operation]) -> None:
    """Raises for what no engine should be asked to commit."""
    if not operations:
        raise ValueError("a commit without operations would have an index that stands for no change")
    for operation in operations:
        if not isinstance(operation, Put | Delete | Revoke):
            raise TypeError(f"an operation is a Put, a Delete or a Revoke, not {type(operation).__name__}")


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


def check_position(after: int | Cursor) -> Cursor | int:
    """The same; raises for what is no place in a log. An index alone is trusted."""
    if not isinstance(after, Cursor):
        check_index(after)
    return after


def check_request(request: SubscribeRequest[Any]) -> None:
    """Raises for what no store can have: no subscription to it would ever get anything."""
    _check_token(request.token)
    for _, key, _, namespace, partition in request.interests:
        for kind, text in (("key", key), ("namespace", namespace), ("partition", partition)):
            if isinstance(text, str) and not (text.isascii() and "\0" not in text):
                _check_text(kind, text)


def last_changes(operations: Sequence[Operation]) -> Sequence[Change]:
    """What a commit of these does to the state: of several changes of one name the last, in the order of those."""
    changes = {operation.name: operation for operation in operations if not isinstance(operation, Revoke)}
    if len(changes) == len(operations):
        return list(changes.values())
    return [each for each in operations if not isinstance(each, Revoke) and changes[each.name] is each]


def revoked_tokens(operations: Sequence[Operation]) -> Sequence[str]:
    """The tokens that a commit of these revokes, each once, in order."""
    return list(dict.fromkeys(each.token for each in operations if isinstance(each, Revoke)))


def _check_name(topic: str, key: str, namespace: str) -> None:
    if not (_is_plain(topic) and _is_plain(key) and (namespace == "default" or _is_plain(namespace))):
        check_part("topic", topic)
        check_part("key", key)
        check_part("namespace", namespace)


def _is_plain(text: object) -> bool:
    """Whether nothing can be wrong with it: the common case, in a quarter of the time."""
    return type(text) is str and text != "" and text.isascii() and "\0" not in text


def check_part(kind: str, text: object) -> None:
    """Raises for what no store can have as a topic, a key or a namespace."""
    if not isinstance(text, str):
        raise TypeError(f"a {kind} is a string, not {text!r}")
    if not text:
        raise ValueError(f"a {kind} must not be empty")
    _check_text(kind, text)


def _check_text(kind: str, text: str) -> None:
    if "\0" in text:
        raise ValueError(f"a {kind} must not contain NUL: {text!r}")
    if not _is_encodable(text):
        raise ValueError(f"a {kind} must not contain half of a surrogate pair: {text!r}")


def _check_token(token: str) -> None:
    if not _is_encodable(token):  # not raised from the error that says so, which has the token
        raise ValueError("a token must not contain half of a surrogate pair")


def _is_encodable(text: str) -> bool:
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
