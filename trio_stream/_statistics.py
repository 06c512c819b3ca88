"""What a publisher says about itself; a snapshot of figures, for introspection."""

from dataclasses import dataclass, field
from typing import Final

from ._errors import CloseReason

BEGINNINGS: Final = ("fresh", "resumed", "replayed", "stale")
FATES: Final = ("run", "shared", "failed", "cancelled")


@dataclass(frozen=True, slots=True)
class TopicStatistics:
    """What a publisher holds for one topic; all but `floor` are counts."""

    commits: int
    """Commits in the history."""
    floor: int
    """The lowest index that one can resume from with the history alone."""
    feeds: int
    """Subjects that have history or readers, and the blank key of each of their namespaces.

    Also each prefix, use of `ALL` and union with a part in this topic, while it is read.
    """
    snapshots: int
    """Snapshots that a new subscriber would share, being made or cached."""


@dataclass(frozen=True, slots=True)
class PublisherStatistics:
    """What a publisher holds, besides its timeline and what it holds by topic; and its totals since the start."""

    index: int
    """Of the newest commit published."""
    epoch: str
    """The name of the present timeline."""
    subscriptions: int
    """Subscriptions that have not ended."""
    waiting: int
    """Those of them whose reader is waiting."""
    tokens: int
    """Different tokens among them."""
    topics: dict[str, TopicStatistics]
    """By the name of the topic."""
    commits: int = 0
    """Published so far; from here on all are totals since the start."""
    events: int = 0
    """Events in these commits."""
    deliveries: int = 0
    """Events that subscriptions have returned, framing among them; a commit is one for each subscription."""
    conflated: int = 0
    """Those of them that stand for several commits."""
    hidden: int = 0
    """Events of commits and snapshots that a subscription did not return, because of its authorizer or filter."""
    withdrawn: int = 0
    """Withdrawals: events that were returned in the place of one that the subscription may not see."""
    opened: dict[str, int] = field(default_factory=dict)
    """Subscriptions by how they began: "fresh", "resumed", "replayed" or "stale"; counted once that is known."""
    snapshots: dict[str, int] = field(default_factory=dict)
    """Snapshots: how many were "run", how many of these "failed" or were "cancelled"; how often one was "shared".

    Shared is one that was cached, or being made, when somebody asked.
    Each part of a snapshot of several interests is counted too.
    """
    ends: dict[str, int] = field(default_factory=dict)
    """Subscriptions by how they ended: "closed" by their owner, "finished", or the value of a `CloseReason`."""
    feed_age: float | None = field(default=None, compare=False)
    """`EventPublisher.feed_age` when the figures were taken."""


class Counts:
    """Totals that grow; what open subscriptions have done is not here yet."""

    __slots__ = ("conflated", "deliveries", "ends", "hidden", "opened", "snapshots", "withdrawn")

    def __init__(self) -> None:
        self.deliveries: int = 0
        self.conflated: int = 0
        self.hidden: int = 0
        self.withdrawn: int = 0
        self.opened: dict[str, int] = dict.fromkeys(BEGINNINGS, 0)
        self.snapshots: dict[str, int] = dict.fromkeys(FATES, 0)
        # By the reason; of those that no publisher ended, by whether their subject was finished.
        self.ends: dict[CloseReason | bool, int] = dict.fromkeys((False, True, *CloseReason), 0)
