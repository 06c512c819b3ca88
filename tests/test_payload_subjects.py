"""The subject of a payload: without one it is no payload, and what a subject raises belongs to the caller."""

from typing import Any

import pytest
from catalogue import HEALTH, Catalogue, event, kinds, ready
from typing_extensions import override

from trio_stream import Event, EventPublisher, InvalidCommitError, Payload, Subject, SubscribeRequest


class Bare:
    """Has none, and says in its repr what must not be told."""

    def __repr__(self) -> str:
        return "Bare(password=hunter2)"


class Unset:
    """Has a place for one, in which there is nothing."""

    __slots__ = ("subject",)


class Declared(Payload):
    """Only says that there is one."""

    subject: str

    @override
    def has_read_permission(self, authorizer: object, /) -> bool:
        return True


class Dynamic:
    """Has whatever is asked for, but no subject."""

    def __getattr__(self, name: str) -> Any:
        if name == "subject":
            raise AttributeError(name)
        return 1


class Raises:
    """Its subject cannot be told."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    @property
    def subject(self) -> str:
        raise self.error


class Broken:
    """Has a subject with a mistake in it."""

    @property
    def subject(self) -> Any:
        return self.nmae  # type: ignore[attr-defined]


class Publishes:
    """Publishes another commit when it is asked for its subject, the first time."""

    def __init__(self, publisher: EventPublisher, index: int) -> None:
        self.publisher = publisher
        self.index = index

    @property
    def subject(self) -> str:
        index, self.index = self.index, 0
        if index:
            self.publisher.publish([event(index, "inner")])
        return "outer"


class Unhashable(str):
    """A key by which nothing can be found."""

    __slots__ = ()
    __hash__ = None  # type: ignore[assignment]


def publisher_at_5() -> EventPublisher:
    return EventPublisher({HEALTH: Catalogue().snapshot}, index=5, epoch="e")


def refuses(payload: Any, kind: type[Exception]) -> Exception:
    """What `publish` raises for it, beside events that are right, after which nothing has changed."""
    publisher = publisher_at_5()
    reader = publisher.subscribe(SubscribeRequest(HEALTH, index=5))
    before = publisher.statistics()
    with pytest.raises(kind) as raised:
        publisher.publish([event(6, "web"), Event(HEALTH, 6, payload), event(6, "db")])
    assert publisher.statistics() == before
    publisher.publish([event(6, "web")])
    assert kinds(ready(reader)) == ["6:web=ok"]
    return raised.value


@pytest.mark.parametrize(
    "payload",
    [Bare(), Unset(), Declared(), Dynamic(), object(), {"subject": "web"}, "web", None, 7],
    ids=lambda payload: type(payload).__name__,
)
def test_a_payload_without_a_subject_is_no_commit(payload: Any) -> None:
    """U22, D18: the message names the type, and nothing of what is in it."""
    error = refuses(payload, InvalidCommitError)
    assert str(error) == f"a payload of type {type(payload).__name__} has no subject"


@pytest.mark.parametrize(
    "error",
    [OSError("gone"), ValueError("bad"), InvalidCommitError("mine"), AttributeError("mine")],
    ids=lambda error: type(error).__name__,
)
def test_what_a_subject_raises_passes_through_as_it_is(error: Exception) -> None:
    """U22: an AttributeError too, which is about something else than the subject."""
    assert refuses(Raises(error), type(error)) is error


def test_a_mistake_in_a_subject_is_not_taken_for_a_missing_one() -> None:
    """U22: its author must see the name that does not exist."""
    assert "nmae" in str(refuses(Broken(), AttributeError))


@pytest.mark.parametrize("subject", [None, 7, b"hunter2", ("hunter2",), Subject("web", None)])  # type: ignore[arg-type]
def test_what_is_no_subject_is_no_commit_and_is_not_shown(subject: Any) -> None:
    payload = Bare()
    payload.subject = subject  # type: ignore[attr-defined]
    error = refuses(payload, InvalidCommitError)
    assert "Bare" in str(error)
    assert "subject" in str(error)
    assert "hunter2" not in str(error)


@pytest.mark.parametrize("others", [0, 1])
@pytest.mark.parametrize("inner", [6, 7, 8])
def test_a_commit_that_a_subject_publishes_comes_before_the_one_it_is_asked_for(
    inner: int, others: int
) -> None:
    """D2, D18: the outer one is refused if it is not after that."""
    publisher = publisher_at_5()
    reader = publisher.subscribe(SubscribeRequest(HEALTH, index=5))
    commit = [Event(HEALTH, 7, Publishes(publisher, inner)), *(event(7, "web") for _ in range(others))]
    if inner < 7:
        publisher.publish(commit)
    else:
        with pytest.raises(InvalidCommitError, match="commit 7 is not after"):
            publisher.publish(commit)
    assert publisher.index == max(inner, 7)
    assert [each.index for each in ready(reader)] == ([6, 7] if inner < 7 else [inner])


@pytest.mark.parametrize("others", [0, 1])
def test_a_key_that_cannot_be_hashed_changes_nothing(others: int) -> None:
    """D18: however many events the commit has."""
    publisher = publisher_at_5()
    payload = Bare()
    payload.subject = Unhashable("web")  # type: ignore[attr-defined]
    with pytest.raises(TypeError, match="unhashable"):
        publisher.publish([Event(HEALTH, 6, payload), *(event(6, "web") for _ in range(others))])
    assert publisher.index == 5
