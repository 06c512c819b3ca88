"""What the model remembers of each subscription and of each run of the snapshot function."""

from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from catalogue import Health
from model.checker import Trace

from trio_stream import CloseReason, Event, Subject, Subscription, Topic
from trio_stream._passages import Snapshot

OWN = "own"


class Planned(Exception):
    """What a snapshot function raises that is meant to fail."""


class Plan(NamedTuple):
    """How one run of the snapshot function goes."""

    reads: Literal["published", "ahead", "behind"] = "published"
    is_late: bool = False  # whether it reads the store only after a while
    pauses: int = 0  # before each append, and before it returns
    fails_after: int | None = None  # appends
    says: Literal["mark", "index", "false mark"] = (
        "mark"  # where there are marks; a false one with a false state
    )
    is_generous: bool = False  # appends more than was asked for


@dataclass(eq=False)
class Run:
    """One run of the snapshot function, from when it was asked for."""

    topic: Topic[Health]
    subject: Subject
    snapshot: Snapshot
    readers: "set[Reader]" = field(default_factory=set)
    newest: int | None = None  # the topic's newest commit when it began
    dropped: int = 0  # the newest that was gone by then
    index: int | None = None  # what it has returned
    done_at: float = 0.0
    error: BaseException | None = None
    is_running: bool = False
    is_abandoned: bool = False
    appended: list[Event[Health]] = field(default_factory=list)


@dataclass(eq=False)
class Reader:
    """A subscription and its trace."""

    subscription: Subscription[Health]
    trace: Trace[Health]
    run: Run | None
    can_see: frozenset[str] | None
    resets: bool
    end: CloseReason | str | None = None
    raised: tuple[Any, ...] | None = None
    rows: int = 0
    is_reset: bool = False  # has lost something, and gets the marker when its new snapshot is whole

    @property
    def is_open(self) -> bool:
        return self.end is None
