"""What is dropped leaves its place too."""

from catalogue import event

from trio_stream import Subject
from trio_stream._buffer import History


def test_a_feed_does_not_grow_with_what_was_published() -> None:
    """D11: a place of 8 bytes for each commit there ever was would be a leak."""
    history = History(8, 0)
    feed = history.enter(Subject("web"))
    for index in range(1, 2_000):
        history.append(index, {Subject("web"): [event(index, "web")]})
    assert len(feed.items) <= 2 * 64
