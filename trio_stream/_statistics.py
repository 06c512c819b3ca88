"""What a publisher says about itself; a snapshot of figures, for introspection."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TopicStatistics:
    """What a publisher holds for one topic; all but `floor` are counts."""

    commits: int
    """Commits in the history."""
    floor: int
    """The lowest index that one can resume from."""
    feeds: int
    """Subjects that have history or readers, and the blank key of each of their namespaces.

    Also each prefix, use of `ALL` and union with a part in this topic, while it is read.
    """
    snapshots: int
    """Snapshots that a new subscriber would share, being made or cached."""


@dataclass(frozen=True, slots=True)
class PublisherStatistics:
    """What a publisher holds: counts, besides its timeline and what it holds by topic."""

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
