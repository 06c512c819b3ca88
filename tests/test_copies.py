"""What is raised can be pickled and copied, as the values that travel can."""

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest

import trio_stream
import trio_stream.stores
import trio_stream.testing
from trio_stream import (
    BusyResourceError,
    ClosedResourceError,
    CloseReason,
    EndOfSubject,
    InvalidCommitError,
    PublisherDisabledError,
    SnapshotFailed,
    StaleCursorError,
    SubscriptionForceClosed,
    SubscriptionLagged,
    UnknownTopicError,
    WouldBlock,
)
from trio_stream.stores import (
    BehindError,
    CommitUnknownError,
    ConflictError,
    HistoryLostError,
    LimitExceededError,
    Name,
    Put,
    StoreError,
    UnreadableCommitError,
)
from trio_stream.testing import PromiseBroken

ERRORS: list[Exception] = [
    BehindError("postgresql://host/db: the standby is behind"),
    BusyResourceError("receiving from"),
    ClosedResourceError("this publisher has stopped"),
    CommitUnknownError("jobs.db: the connection is lost"),
    ConflictError(Name("jobs", "a"), 4, 4, is_final=True),
    EndOfSubject(7, "e"),
    HistoryLostError(3, 7, "e"),
    InvalidCommitError("not one commit"),
    LimitExceededError("jobs.db", "key", 512, 513),
    PromiseBroken("D3", 7, "lost"),
    PublisherDisabledError("disabled"),
    SnapshotFailed(0, "e"),
    StaleCursorError("the log begins at 7"),
    StoreError("sqlite: no such file"),
    SubscriptionForceClosed(CloseReason.TOKEN, 7, "e"),
    SubscriptionLagged(7, "e", 3),
    UnknownTopicError("jobs"),
    UnreadableCommitError("jobs.db", 7, frozenset({"jobs"}), (Put("users", "u", 1),), missing=5),
    WouldBlock("nothing is ready"),
]
WAYS: dict[str, Callable[[Any], Any]] = {
    "pickle": lambda value: pickle.loads(pickle.dumps(value)),
    "old pickle": lambda value: pickle.loads(pickle.dumps(value, protocol=0)),
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
}
every_way = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)


def test_the_list_has_every_error_there_is() -> None:
    public = {
        value
        for module in (trio_stream, trio_stream.stores, trio_stream.testing)
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, BaseException)
    }
    assert {type(error) for error in ERRORS} == public


@every_way
@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_a_copy_of_an_error_says_the_same(error: Exception, way: Callable[[Any], Any]) -> None:
    """U22: kind, message, arguments, fields, and the notes that somebody has added."""
    error = copy.copy(error)
    error.add_note("while following jobs")
    again = way(error)
    assert again is not error
    assert type(again) is type(error)
    assert (str(again), repr(again), again.args) == (str(error), repr(error), error.args)
    assert vars(again) == vars(error)
    assert again.__notes__ == ["while following jobs"]
    assert str(way(again)) == str(error)


@every_way
def test_an_error_of_a_kind_of_ones_own_is_copied_as_that(way: Callable[[Any], Any]) -> None:
    error = Lagged(7, "e", 3)
    error.reader = "mirror"
    again = way(error)
    assert type(again) is Lagged
    assert (again.index, again.missed, again.reader) == (7, 3, "mirror")


class Lagged(SubscriptionLagged):
    """With a field of its own."""

    reader: str = ""


def test_a_copy_of_a_failed_snapshot_has_its_cause() -> None:
    """U22: the cause is what tells what has happened; it need not be one that can be pickled."""
    failed = SnapshotFailed(0, "e")
    failed.__cause__ = OSError(lambda: None)
    for again in (copy.copy(failed), copy.deepcopy(failed)):
        assert again.__cause__ is failed.__cause__
        assert (again.index, again.epoch, str(again)) == (0, "e", str(failed))
    assert pickle.loads(pickle.dumps(failed)).__cause__ is None


@every_way
def test_who_is_told_that_another_receives_can_tell_it_to_others(way: Callable[[Any], Any]) -> None:
    """The message is made by anyio, of a part that has to go with it."""
    error = BusyResourceError("receiving from")
    assert str(way(error)) == str(error)
    assert "receiving from" in str(error)
