"""What is dropped leaves its place too."""

from catalogue import HEALTH, event

from trio_stream import Subject
from trio_stream._commit import split
from trio_stream._topic import History


def test_a_feed_does_not_grow_with_what_was_published() -> None:
    """D11: a place of 8 bytes for each commit there ever was would be a leak."""
    history = History(HEALTH, 8, 65_536, 0)
    feed = history.enter(Subject("web"))
    for index in range(1, 2_000):
        pairs, parts = split([event(index, "web")])
        history.append(index, pairs, parts[HEALTH])
        while history.is_full:
            history.drop_oldest()
    assert len(feed.items) <= 2 * 64
