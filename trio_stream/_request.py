"""What a subscriber asks for: interests, rights, and how far it has come already. Immutable."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Generic, Self, TypeAlias, cast, overload

from typing_extensions import TypeVar, override

from ._arguments import check_index
from ._events import Subject, Topic, check_topic, frozen, subject_of
from ._interest import ALL, Interest, Name, canonical

P = TypeVar("P", default=Any)
Q = TypeVar("Q", default=Any)

_TEXT: Final = re.compile(r"([0-9]+)@([^@.]*)(?:\.([^@.]+))?", re.ASCII)
_ESCAPED: Final = re.compile(r"%[0-9A-Fa-f]{2}")
_LONGEST_INDEX: Final = 4300  # digits that Python makes an integer of


@frozen
@dataclass(frozen=True, slots=True)
class Cursor:
    """How far a reader has come, as one value; `SubscribeRequest.after` goes on from there.

    `index`: that of the last commit that it had everything of; 0 before the first.
    `epoch`: names the timeline of the index; "" only where there is none, and the index is 0.
    `mark`: what the store wrote with that commit, where it gives marks; "" if it is not known.

    Its text is `INDEX@EPOCH` or `INDEX@EPOCH.MARK`, as in "17@6f0c.a91b".
    It has no character that is special in a URL or in a header: others are written as in a URL, "%20".
    """

    index: int
    epoch: str
    mark: str = ""

    def __post_init__(self) -> None:
        check_index(self.index)
        for name in ("epoch", "mark"):
            if not isinstance(value := getattr(self, name), str):
                raise TypeError(f"{name} is a string, not {type(value).__name__}")
        if self.index and not self.epoch:
            raise ValueError("the epoch of a cursor must not be empty")

    @override
    def __str__(self) -> str:
        text = f"{self.index:d}@{_quoted(self.epoch)}"
        return f"{text}.{_quoted(self.mark)}" if self.mark else text

    @classmethod
    def parse(cls, text: str) -> "Cursor":
        """The cursor whose text this is; `ValueError` if it is none."""
        if not isinstance(text, str):
            raise TypeError(f"the text of a cursor is a string, not {type(text).__name__}")
        match = _TEXT.fullmatch(text)
        if match is None or len(match[1]) > _LONGEST_INDEX:
            raise ValueError(f"not a cursor: {text[:100]!r} (one looks like '17@6f0c' or '17@6f0c.a91b')")
        try:
            return cls(int(match[1]), _unquoted(match[2]), _unquoted(match[3] or ""))
        except ValueError as error:
            raise ValueError(f"not a cursor: {text[:100]!r} ({error})") from None


def _quoted(text: str) -> str:
    """With everything but letters, digits, '-', '_' and '~' of ASCII as in a URL."""
    if text.isascii() and text.replace("-", "").replace("_", "").isalnum():
        return text
    from urllib.parse import quote  # noqa: PLC0415 - rare, and takes long to import

    return quote(text, safe="", errors="surrogatepass").replace(".", "%2E")


def _unquoted(text: str) -> str:
    if "%" not in text:
        return text
    if len(_ESCAPED.findall(text)) != text.count("%"):
        raise ValueError("'%' is followed by two hexadecimal digits")
    from urllib.parse import unquote  # noqa: PLC0415 - as above

    return unquote(text, errors="surrogatepass")


class _Unset:
    """In the place of an argument that was not given."""


_UNSET: Final[Any] = _Unset()
_Names: TypeAlias = dict[str, Any]


@frozen
@dataclass(frozen=True, slots=True, init=False, repr=False)
class SubscribeRequest(Generic[P]):
    """What a subscriber asks for; it may be used for any number of subscriptions.

    `key`: "" asks for every key of the namespace.
    `prefix`: asks for every key that begins with `key`.
    `namespace`, `partition`: `ALL` asks for every one of them.
    `token`: matched exactly by close events; "" is a token like any other.
    `index`: 0 for a fresh start, otherwise the last index received, to resume after it.
    `epoch`: that of the publisher that gave `index`; None trusts the index.
    `mark`: that of the commit with this index, if the publisher gave one.
    `after` sets these three from a `Cursor`.

    `a | b` asks for both in one subscription, with one order and one end-of-snapshot; both have the same token, and
    neither has an index.

    Two requests are equal if they ask for the same: `interests` is what is compared.
    """

    interests: tuple[Interest, ...]
    """What is asked for, in order: none twice, and none that another one covers."""
    token: str = field(repr=False)
    index: int
    epoch: str | None
    mark: str

    __match_args__ = ("topic", "key")

    @overload
    def __init__(
        self,
        topic: Topic[P],
        key: str = "",
        *,
        namespace: Name = "default",
        partition: Name = "default",
        token: str = "",
        index: int = 0,
        epoch: str | None = None,
        prefix: bool = False,
        mark: str = "",
    ) -> None: ...
    @overload
    def __init__(
        self,
        *,
        interests: Iterable[Interest],
        token: str = "",
        index: int = 0,
        epoch: str | None = None,
        mark: str = "",
    ) -> None: ...
    def __init__(
        self,
        topic: Any = _UNSET,
        key: Any = _UNSET,
        *,
        namespace: Any = _UNSET,
        partition: Any = _UNSET,
        token: str = "",
        index: int = 0,
        epoch: str | None = None,
        prefix: Any = _UNSET,
        mark: str = "",
        interests: Any = (),
    ) -> None:
        # With `interests` as well, which `dataclasses.replace` gives, the rest says what is to be another.
        given: _Names = {
            "topic": topic,
            "key": key,
            "prefix": prefix,
            "namespace": namespace,
            "partition": partition,
        }
        asked = _asked(interests, {name: value for name, value in given.items() if value is not _UNSET})
        if not isinstance(token, str):
            raise TypeError(f"token is a string, not {type(token).__name__}")
        if epoch is not None and not isinstance(epoch, str):
            raise TypeError(f"epoch is a string or None, not {type(epoch).__name__}")
        if not isinstance(mark, str):
            raise TypeError(f"mark is a string, not {type(mark).__name__}")
        check_index(index)
        write = object.__setattr__
        write(self, "interests", asked)
        write(self, "token", token)
        write(self, "index", index)
        write(self, "epoch", epoch)
        write(self, "mark", mark)

    @override
    def __repr__(self) -> str:
        if len(self.interests) == 1:
            ((topic, key, prefix, namespace, partition),) = self.interests
            asked = f"topic={topic!r}, key={key!r}, namespace={namespace!r}, partition={partition!r}"
            asked += ", prefix=True" if prefix else ""
        else:
            asked = f"interests={self.interests!r}"
        mark = f", mark={self.mark!r}" if self.mark else ""
        return f"SubscribeRequest({asked}, index={self.index!r}, epoch={self.epoch!r}{mark})"

    def __or__(self, other: "SubscribeRequest[Q]") -> "SubscribeRequest[P | Q]":
        """One subscription to both; `ValueError` unless the tokens are the same and neither has an index."""
        if not isinstance(other, SubscribeRequest):
            return NotImplemented
        if self.token != other.token:
            raise ValueError("requests of different tokens cannot be one subscription")
        for each in (self, other):
            if each.index:
                raise ValueError(
                    f"a request that resumes after {each.index} cannot be joined: join, then resume"
                )
        return SubscribeRequest(interests=self.interests + other.interests, token=self.token)

    def after(self, cursor: Cursor | None) -> Self:
        """The same request, to go on from there; None, and an index of 0, is a fresh start."""
        if cursor is not None and not isinstance(cursor, Cursor):
            raise TypeError(f"a cursor is a Cursor or None, not {type(cursor).__name__}")
        index, epoch, mark = (
            (cursor.index, cursor.epoch, cursor.mark) if cursor and cursor.index else (0, None, "")
        )
        return type(self)(interests=self.interests, token=self.token, index=index, epoch=epoch, mark=mark)

    if TYPE_CHECKING:  # which know by it what `dataclasses.replace` takes
        topic: Topic[P]
        key: str
        prefix: bool
        namespace: Name
        partition: Name
    else:

        @property
        def topic(self) -> Topic[P]:
            """The topic; `ValueError` if the request has several interests."""
            return self._only("topic").topic

        @property
        def key(self) -> str:
            """The key, or what the keys begin with; `ValueError` if the request has several interests."""
            return self._only("key").key

        @property
        def prefix(self) -> bool:
            """Whether keys that begin with `key` are meant; `ValueError` if the request has several interests."""
            return self._only("prefix").prefix

        @property
        def namespace(self) -> Name:
            """The namespace, or `ALL`; `ValueError` if the request has several interests."""
            return self._only("namespace").namespace

        @property
        def partition(self) -> Name:
            """The partition, or `ALL`; `ValueError` if the request has several interests."""
            return self._only("partition").partition

    @property
    def subject(self) -> Subject:
        """The slice of the topic that is asked for; `ValueError` if it is more than one subject can say."""
        _, key, prefix, namespace, partition = self._only("subject")
        if prefix or namespace is ALL or partition is ALL:
            raise ValueError("a prefix, or ALL, is no subject: look at `interests`, or ask `covers`")
        return Subject(key, namespace, partition)

    def covers(self, topic: Topic[Any], subject: Subject | str) -> bool:
        """Whether this asks for an event of this topic and subject; a string means `Subject(that)`.

        A snapshot function can choose by it what to append.
        """
        check_topic(topic)
        return covered(self.interests, topic, subject_of(subject))

    def _only(self, what: str) -> Interest:
        if len(self.interests) > 1:
            raise ValueError(f"this request has {len(self.interests)} interests, and so no one {what}")
        return self.interests[0]


def share(request: SubscribeRequest[Any], interests: tuple[Interest, ...]) -> None:
    """Has the request keep these interests, which are equal to its own, so that its own are freed.

    They are a fifth of what an idle subscription takes.
    """
    own = request.interests
    if own is interests:
        return
    for mine, its in zip(own, interests, strict=True):
        # Topics of one name are equal, and may be of different classes; so are a string and a member of an enum.
        if mine is not its and (mine[0] is not its[0] or [*map(type, mine)] != [*map(type, its)]):
            return
    object.__setattr__(request, "interests", interests)


def covered(interests: Iterable[Interest], topic: Topic[Any], subject: Subject) -> bool:
    """Whether one of these asks for an event of this topic and subject."""
    for each in interests:  # noqa: SIM110 - `any` takes three times as long
        if each.covers(topic, subject):
            return True
    return False


def _asked(interests: object, given: _Names) -> tuple[Interest, ...]:
    """What is asked for: the interests, or one that these parts make, or one with these parts replaced."""
    if interests == ():
        if "topic" not in given:
            raise TypeError("a request needs a topic")
        return (_interest(**given),)
    if isinstance(interests, str) or not isinstance(interests, Iterable):
        raise TypeError(f"interests are an iterable of Interest, not {type(interests).__name__}")
    several = tuple(interests)
    for each in several:
        if not isinstance(each, Interest):
            raise TypeError(f"an interest is an Interest, not {type(each).__name__}")
    asked = tuple([_interest(*each) for each in several])
    if len(asked) > 1:
        asked = canonical(asked)
    if not asked:
        raise ValueError("a request needs at least one interest")
    if not given:
        return asked
    if len(asked) > 1:
        raise ValueError(f"a request of {len(asked)} interests has no one {', '.join(given)}")
    return (_interest(**{**asked[0]._asdict(), **given}),)


def _interest(
    topic: object,
    key: object = "",
    prefix: object = False,
    namespace: object = "default",
    partition: object = "default",
) -> Interest:
    """An interest of parts that anybody may have given."""
    check_topic(topic)
    assert isinstance(topic, Topic)
    if not isinstance(key, str):
        raise TypeError(f"key is a string, not {type(key).__name__}")
    for name, value in (("namespace", namespace), ("partition", partition)):
        if not isinstance(value, str) and value is not ALL:
            raise TypeError(f"{name} is a string or ALL, not {type(value).__name__}")
    if not isinstance(prefix, bool):
        raise TypeError(f"prefix is True or False, not {prefix!r}")
    return Interest(topic, key, prefix and key != "", cast("Name", namespace), cast("Name", partition))
