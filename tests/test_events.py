"""The values that travel: topics, subjects, payloads, events, batches and requests."""

import copy
import pickle
from collections.abc import Sequence
from dataclasses import FrozenInstanceError, dataclass, fields, is_dataclass
from typing import Any, cast

import pytest
from catalogue import HEALTH, Catalogue, Health, event, kinds, ready
from typing_extensions import TypeVar, override

import trio_stream.view
from trio_stream import (
    Event,
    EventPublisher,
    Framing,
    InvalidCommitError,
    Payload,
    PayloadEvents,
    SnapshotAppender,
    Subject,
    SubscribeRequest,
    SubscriptionForceClosed,
    Topic,
    close_subscription_event,
    open_publisher,
)

P = TypeVar("P", default=Any)

WEB, DB, API = event(3, "web"), event(3, "db"), event(3, "api")


class Undecided(Payload):
    """Forgot to say who may read it."""

    @property
    def subject(self) -> str:
        return "web"


UNDECIDED: type[Any] = Undecided  # a type checker refuses to make one: a method is missing


def batch(*events: Event[Health]) -> Event[Health]:
    return Event(HEALTH, 3, PayloadEvents(events))


VALUES = [
    each
    for module in (trio_stream, trio_stream.view)
    for each in vars(module).values()
    if isinstance(each, type) and is_dataclass(each)
]


@pytest.mark.parametrize("kind", VALUES, ids=lambda kind: kind.__name__)
def test_whatever_is_handed_out_is_immutable_and_has_no_dict(kind: type[Any]) -> None:
    """A dict would cost more than all that is in it."""
    value = object.__new__(kind)
    for name in [*(field.name for field in fields(kind)), "other"]:
        with pytest.raises((FrozenInstanceError, TypeError)):  # the latter is a bug of Python before 3.13
            setattr(value, name, 1)
        with pytest.raises((FrozenInstanceError, TypeError)):
            delattr(value, name)
    assert not hasattr(value, "__dict__")


def test_topics_of_the_same_name_are_the_same_topic() -> None:
    assert Topic[Health]("health") == Topic[Any]("health")
    assert {Topic[Health]("health"): 1}[Topic("health")] == 1
    assert Topic[Health]("health") != Topic[Health]("jobs")


class Named(Topic[P]):
    """As an application has it that wants to say more of its topics."""

    __slots__ = ()

    @property
    def title(self) -> str:
        return self.name.title()


@dataclass(frozen=True)
class Described(Topic[P]):
    """`@dataclass` would give it an equality and a hash of its own."""

    description: str = ""


def alike() -> list[Topic[Health]]:
    return [
        Topic("health"),
        Named("health"),
        Described("health", "of services"),
        Described("health", "another"),
    ]


@pytest.mark.parametrize("one", alike(), ids=repr)
@pytest.mark.parametrize("other", alike(), ids=repr)
def test_a_topic_of_a_subclass_is_the_topic_of_its_name(one: Topic[Health], other: Topic[Health]) -> None:
    """U22: in both directions, as a key, and for the publisher."""
    assert one == other
    assert (one != other) is False
    assert hash(one) == hash(other)
    assert {one: 1}[other] == 1
    assert one != type(one)("jobs")
    assert one != "health"
    assert pickle.loads(pickle.dumps(one)) == other

    publisher = EventPublisher(index=2)
    publisher.register_handler(one, Catalogue().snapshot)
    with pytest.raises(ValueError, match="has a handler"):
        publisher.register_handler(other, Catalogue().snapshot)
    subscription = publisher.subscribe(SubscribeRequest(other, index=2))
    publisher.publish([event(3, "web", topic=one), event(3, "db", topic=other)])
    assert kinds(ready(subscription)) == ["3:web=ok+db=ok"]
    assert SubscribeRequest(one, "web") == SubscribeRequest(other, "web")
    assert SubscribeRequest(one, "web").covers(other, "web")
    publisher.refresh(other)
    with pytest.raises(SubscriptionForceClosed):
        subscription.receive_nowait()


@pytest.mark.anyio
async def test_a_snapshot_may_be_of_a_topic_of_a_subclass() -> None:
    async def handler(request: SubscribeRequest[Health], snapshot: SnapshotAppender[Health]) -> int:
        await snapshot.append([event(1, "web", topic=Named("health"))])
        return 1

    async with (
        open_publisher({HEALTH: handler}) as publisher,
        publisher.subscribe(SubscribeRequest(Named[Health]("health"))) as subscription,
    ):
        assert kinds([await subscription.receive(), await subscription.receive()]) == ["1:web=ok", "eos@1"]


@pytest.mark.parametrize("topic", [Named[Health]("health"), Described[Health]("health", "of services")])
def test_a_topic_of_a_subclass_cannot_be_changed_either(topic: Topic[Health]) -> None:
    for name in ("name", "description", "other"):
        with pytest.raises(FrozenInstanceError):
            setattr(topic, name, "jobs")
    with pytest.raises((ValueError, TypeError)):
        type(topic)("")


def test_the_kind_of_framing_is_told_by_one_name() -> None:
    """U23: for `match`, in which a type checker finds what was forgotten."""
    for kind in Framing:
        assert Event[Health](HEALTH, 3, kind).framing is kind
    assert WEB.framing is None
    assert batch(WEB, DB).framing is None


def test_a_topic_reads_as_its_name() -> None:
    assert str(Topic[Health]("service-health")) == "service-health" == Topic[Health]("service-health").name


def test_a_topic_cannot_be_changed() -> None:
    with pytest.raises(FrozenInstanceError):
        Topic[Health]("health").name = "jobs"  # type: ignore[misc]


@pytest.mark.parametrize(("name", "error"), [("", ValueError), (7, TypeError), (None, TypeError)])
def test_a_topic_needs_a_name(name: Any, error: type[Exception]) -> None:
    """D18."""
    with pytest.raises(error):
        Topic[Health](name)


def test_a_subject_reads_as_partition_namespace_and_key() -> None:
    assert str(Subject("web")) == "default/default/web"
    assert str(Subject("web", "team", "west")) == "west/team/web"
    assert str(Subject()) == "default/default/"


def test_subjects_are_values() -> None:
    assert Subject("web") == Subject("web", "default", "default")
    assert len({Subject("web"), Subject("web"), Subject("Web"), Subject("web", "team")}) == 3
    with pytest.raises(AttributeError):
        Subject("web").key = "db"  # type: ignore[misc]


def test_a_payload_that_does_not_say_who_may_read_it_refuses() -> None:
    with pytest.raises(NotImplementedError, match="Undecided"):
        UNDECIDED().has_read_permission(frozenset[str]())


@pytest.mark.anyio
async def test_a_payload_is_only_asked_for_a_subscription_with_an_authorizer() -> None:
    """Departure 14: forgetting to say who may read a payload cannot leak it. The cursor stays before it."""
    store = Catalogue()
    async with open_publisher({HEALTH: store.snapshot}, index=1) as publisher:
        request = SubscribeRequest(HEALTH, "web", index=1)
        trusted, limited = publisher.subscribe(request), publisher.subscribe(request, authorizer=object())
        undecided = Event(HEALTH, 2, UNDECIDED())
        publisher.publish([undecided])
        assert ready(trusted) == [undecided]
        for _ in range(2):
            with pytest.raises(NotImplementedError):
                limited.receive_nowait()
        assert limited.index == 1


@pytest.mark.anyio
async def test_a_subject_that_is_a_string_is_a_key() -> None:
    store = Catalogue()
    async with open_publisher({HEALTH: store.snapshot}, index=1) as publisher:
        subscriptions = [
            publisher.subscribe(SubscribeRequest(HEALTH, key, index=1)) for key in ("web", "", "db")
        ]
        publisher.publish([Event(HEALTH, 2, UNDECIDED())])
        assert [[received.index for received in ready(s)] for s in subscriptions] == [[2], [2], []]


def test_a_payload_without_a_proper_subject_cannot_be_published() -> None:
    """D18."""

    class Lost(Payload):
        """Says nothing about its subject."""

    class Odd(Payload):
        def __init__(self, subject: Any) -> None:
            self.subject = subject  # type: ignore[misc]

    lost: type[Any] = Lost
    odd: type[Any] = Odd
    publisher = EventPublisher({HEALTH: Catalogue().snapshot})
    with pytest.raises(InvalidCommitError, match="Lost has no subject"):
        publisher.publish([Event(HEALTH, 1, lost())])
    for subject in (None, 5, b"web", Subject(5), Subject("web", None), Subject("web", "n", 1)):  # type: ignore[arg-type]
        with pytest.raises(InvalidCommitError, match="subject"):
            publisher.publish([Event(HEALTH, 1, odd(subject))])
    assert publisher.index == 0


class Public(Payload):
    __slots__ = ()

    @override
    def has_read_permission(self, authorizer: object, /) -> bool:
        return True


@dataclass(frozen=True)
class Plain(Public):
    subject: str


@dataclass(frozen=True, slots=True)
class Slotted(Public):
    subject: Subject
    passing: bool


class Assigned(Public):
    def __init__(self) -> None:
        self.subject = "web"  # type: ignore[misc]  # mypy holds it for a property that cannot be set


@pytest.mark.parametrize("payload", [Plain("web"), Slotted(Subject("web"), True), Assigned()])  # type: ignore[abstract]
def test_the_subject_may_be_a_field_of_a_payload_class(payload: Any) -> None:
    """A property that `Payload` has would stand in its way."""
    publisher = EventPublisher({HEALTH: Catalogue().snapshot}, index=1)
    subscription = publisher.subscribe(SubscribeRequest(HEALTH, "web", index=1))
    publisher.publish([Event(HEALTH, 2, payload)])
    assert [each.payload for each in ready(subscription)] == [payload]


@pytest.mark.parametrize(
    ("payload", "flags", "singles"),
    [
        (WEB.payload, (False, False, False), 1),
        (PayloadEvents([WEB, DB]), (False, False, False), 2),
        (Framing.END_OF_SNAPSHOT, (True, False, True), 0),
        (Framing.NEW_SNAPSHOT_TO_FOLLOW, (False, True, True), 0),
    ],
    ids=["one", "batch", "end of snapshot", "new snapshot to follow"],
)
def test_an_event_says_what_it_is(payload: Any, flags: tuple[bool, bool, bool], singles: int) -> None:
    """C15."""
    received: Event[Health] = Event(HEALTH, 3, payload)
    assert (received.is_end_of_snapshot, received.is_new_snapshot_to_follow, received.is_framing) == flags
    assert isinstance(received.events, tuple)
    assert len(received.events) == singles


def test_the_events_of_an_event_are_itself_or_the_items_of_its_batch_in_order() -> None:
    """C15, D4."""
    assert WEB.events == (WEB,)
    assert WEB.events[0] is WEB
    assert batch(WEB, DB, API).events == (WEB, DB, API)


@pytest.mark.parametrize("name", ["topic", "index", "payload", "anything"])
def test_an_event_cannot_be_changed(name: str) -> None:
    with pytest.raises((FrozenInstanceError, AttributeError, TypeError)):
        setattr(event(3, "web"), name, None)
    assert not hasattr(WEB, "__dict__")


def test_events_of_the_same_content_are_equal() -> None:
    assert event(3, "web") == WEB != event(4, "web")
    assert len({WEB, event(3, "web"), DB}) == 2


def test_a_batch_is_a_sequence_of_its_items() -> None:
    events = PayloadEvents([WEB, DB, API])
    assert isinstance(events, Sequence)
    assert events.items == (WEB, DB, API)
    assert len(events) == 3
    assert [*events] == [WEB, DB, API] == [*reversed(events)][::-1]
    assert (events[0], events[-1], tuple(events[1:])) == (WEB, API, (DB, API))
    assert DB in events
    assert events.index(API) == 2
    with pytest.raises(IndexError):
        events[3]


def test_a_batch_takes_its_items_once_and_cannot_be_changed() -> None:
    """D18: there, an all-denied batch keeps its items and the list aliases shared memory."""
    source = [WEB, DB]
    events = PayloadEvents(iter(source))
    source.clear()
    assert events.items == (WEB, DB)
    assert isinstance(events.items, tuple)
    for change in (
        lambda: setattr(events, "items", ()),
        lambda: setattr(events, "other", 1),
        lambda: delattr(events, "items"),
        lambda: cast("Any", events).append(API),
        lambda: cast("Any", events).__setitem__(0, API),
    ):
        with pytest.raises((AttributeError, TypeError)):
            change()
    assert events.items == (WEB, DB)


def test_batches_are_values() -> None:
    events = PayloadEvents([WEB, DB])
    assert events == PayloadEvents((WEB, DB))
    assert events != PayloadEvents([DB, WEB])
    assert events != (WEB, DB)
    assert hash(events) == hash(PayloadEvents([WEB, DB]))
    assert pickle.loads(pickle.dumps(events)) == copy.deepcopy(events) == copy.copy(events) == events
    assert "web" in repr(events)


@pytest.mark.parametrize(
    ("readers", "left"),
    [({"web", "db", "api"}, [WEB, DB, API]), ({"api", "web"}, [WEB, API]), ({"db"}, [DB]), (set(), None)],
    ids=["all", "some", "one", "none"],
)
def test_a_batch_is_filtered_into_a_new_one(readers: set[str], left: list[Event[Health]] | None) -> None:
    """C16."""
    events = PayloadEvents([WEB, DB, API])
    readable = events.readable_by(frozenset(readers))
    assert (readable and [*readable]) == left
    assert events.has_read_permission(frozenset(readers)) is (left is not None)
    assert events.items == (WEB, DB, API)


def test_a_batch_has_no_subject() -> None:
    """C11."""
    with pytest.raises(TypeError, match="must not be published"):
        _ = PayloadEvents([WEB]).subject


@pytest.mark.parametrize(
    "payload",
    [PayloadEvents([WEB]), Framing.END_OF_SNAPSHOT, Framing.NEW_SNAPSHOT_TO_FOLLOW],
    ids=["batch", "end of snapshot", "new snapshot to follow"],
)
def test_framing_and_batches_cannot_be_published(payload: Any) -> None:
    """C11, D18."""
    publisher = EventPublisher({HEALTH: Catalogue().snapshot})
    with pytest.raises(InvalidCommitError):
        publisher.publish([event(3, "web"), Event(HEALTH, 3, payload)])
    assert publisher.index == 0


def test_a_close_event_takes_duplicates_and_any_iterable() -> None:
    tokens = close_subscription_event(["a", "b", "a", ""])
    assert tokens == close_subscription_event(iter({"", "b", "a"}))
    assert tokens != close_subscription_event(["a"])
    assert close_subscription_event([]) == close_subscription_event(())


@pytest.mark.parametrize("tokens", ["secret", "", b"secret", ["a", 7], [None], None], ids=repr)
def test_a_close_event_refuses_what_are_not_tokens(tokens: Any) -> None:
    """D18: a bare string would be read letter by letter."""
    with pytest.raises(TypeError):
        close_subscription_event(tokens)


@pytest.mark.anyio
async def test_a_close_event_is_never_delivered() -> None:
    """D9: also when it comes with a commit, and for tokens that nobody uses."""
    store = Catalogue()
    async with open_publisher({HEALTH: store.snapshot}, index=1) as publisher:
        subscription = publisher.subscribe(SubscribeRequest(HEALTH, index=1, token="mine"))
        publisher.publish([close_subscription_event(["nobody", "nobody"])])
        assert publisher.index == 1
        publisher.publish([close_subscription_event(["other"]), event(2, "web")])
        assert kinds(ready(subscription)) == ["2:web=ok"]


def test_a_request_asks_for_every_key_from_the_start_unless_told_otherwise() -> None:
    request = SubscribeRequest(HEALTH)
    assert (request.key, request.token, request.index, request.epoch) == ("", "", 0, None)
    assert request.subject == Subject("", "default", "default")
    assert SubscribeRequest(HEALTH, "web", namespace="team", partition="west").subject == Subject(
        "web", "team", "west"
    )


def test_a_request_is_an_immutable_value() -> None:
    request = SubscribeRequest(HEALTH, "web", token="t", index=3, epoch="e")
    assert request == SubscribeRequest(HEALTH, "web", token="t", index=3, epoch="e")
    assert len({request, SubscribeRequest(HEALTH, "web", token="t", index=3, epoch="e")}) == 1
    for name in ("topic", "key", "namespace", "partition", "token", "index", "epoch", "other"):
        with pytest.raises((FrozenInstanceError, AttributeError, TypeError)):
            setattr(request, name, None)
    with pytest.raises(TypeError):
        SubscribeRequest(HEALTH, "web", "default")  # type: ignore[call-overload]


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"index": -1}, ValueError),
        ({"index": 1.0}, TypeError),
        ({"index": True}, TypeError),
        ({"index": None}, TypeError),
        ({"key": None}, TypeError),
        ({"key": b"web"}, TypeError),
        ({"namespace": None}, TypeError),
        ({"partition": 7}, TypeError),
        ({"token": None}, TypeError),
        ({"epoch": 7}, TypeError),
        ({"topic": "health"}, TypeError),
    ],
    ids=str,
)
def test_a_request_that_makes_no_sense_is_refused_when_it_is_made(
    options: dict[str, Any], error: type[Exception]
) -> None:
    """D18."""
    with pytest.raises(error):
        SubscribeRequest(**{"topic": HEALTH, **options})


def test_framing_and_close_events_read_as_what_they_are() -> None:
    assert [framing.value for framing in Framing] == ["end-of-snapshot", "new-snapshot-to-follow"]
    close = close_subscription_event(["t"])
    assert (str(close.topic), close.index) == ("close-subscription", 0)


def test_batches_of_other_events_have_another_hash() -> None:
    """Otherwise a set of them is a list that is searched from its beginning."""
    assert len({hash(PayloadEvents([event(index, "web")])) for index in range(10)}) == 10


@pytest.mark.anyio
async def test_every_partition_has_a_blank_key_of_its_own() -> None:
    """D3: and so has every namespace of it."""

    @dataclass(frozen=True)
    class Placed:
        subject: Subject

    topic = Topic[Any]("placed")
    places = [("default", "default"), ("team", "default"), ("default", "west"), ("team", "west")]
    async with open_publisher({topic: Catalogue().snapshot}, index=1) as publisher:
        readers = {
            place: publisher.subscribe(
                SubscribeRequest(topic, namespace=place[0], partition=place[1], index=1)
            )
            for place in places
        }
        for index, place in enumerate(places, 2):
            publisher.publish([Event(topic, index, Placed(Subject("web", *place)))])
        received = {place: [each.index for each in ready(reader)] for place, reader in readers.items()}
        assert received == {place: [index] for index, place in enumerate(places, 2)}


def test_a_close_event_cannot_be_changed() -> None:
    closing = close_subscription_event(["secret"])
    with pytest.raises(AttributeError):
        setattr(closing.payload, "token_secret_ids", frozenset())  # noqa: B010 - a type checker refuses the other way
    assert closing == close_subscription_event(["secret", "secret"])
    assert hash(closing) == hash(close_subscription_event(["secret"]))


def test_a_subclass_of_topic_may_be_a_dataclass_and_is_compared_by_its_name_all_the_same() -> None:
    @dataclass(frozen=True)
    class Documented(Topic[Health]):
        text: str = ""

    topic = Documented("health", text="how they are")
    assert topic == HEALTH == Documented("health")
    assert hash(topic) == hash(HEALTH)
    assert topic != Documented("jobs", text="how they are")
