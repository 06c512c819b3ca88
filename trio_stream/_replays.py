"""Replays: commits that the histories no longer have, read from where they are kept, page by page. Pure, no event loop.

A reader that stands below what the history has, and whose topics can be replayed, passes through pages.
A *page* is an ordered feed that a replay function fills with the commits after one cursor, at most `WINDOW` of them.
What follows its last commit is its *sequel*:

| sequel  | seen by            | then the reader                                                              |
|---------|--------------------|------------------------------------------------------------------------------|
|         | None               | waits in the page                                                            |
| reached | `Reached`          | goes on live, if the history has what is newer; if not, into the next page   |
| broken  | `Broken`           | has fallen off (R2); one whose cursor is not judged yet is stale             |

So a reader that is slower than the writer goes from page to page at its own pace, and holds no more than one of them.

Who asks for the same, with the same cursor, shares a page.
Who is further on may join one that begins before and has come there, if its cursor need not be judged: what it has had
is passed over.
If there is none, it gets a page of its own, so that nobody waits for another.

A page goes with its last reader, and so does the function that fills it.
"""

from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Container
from operator import attrgetter
from typing import Any, Final

from ._buffer import Broken, Passage, Reached
from ._events import Event, Topic, size
from ._feeds import Feeds
from ._request import Cursor
from ._routes import Interests
from ._wait import Parking

WINDOW: Final = 1024  # events in a page; one commit more than that, if it is larger


class Page(Passage):
    """The commits after a cursor, perhaps still being read."""

    __slots__ = ("cancel", "cursor", "is_void", "last", "size", "until")

    def __init__(self, interests: Interests, cursor: Cursor, until: int) -> None:
        super().__init__()
        # The last commit that its readers want: what they ask for was finished there, and reopened since. 0 if all.
        self.until: int = until
        self.interests: Interests = interests
        self.cursor: Cursor = cursor
        self.dropped: int = cursor.index
        # The index of the newest commit that was appended, whether it was asked for or not.
        self.last: int = cursor.index
        # How many events there are in it.
        self.size: int = 0
        # Whether it is of a state that was replaced, or of a publisher that has stopped.
        self.is_void: bool = False
        # Ends the function, or has it not begin.
        self.cancel: Callable[[], object] | None = None

    @property
    def is_full(self) -> bool:
        """Whether nothing more is taken in."""
        return self.size >= WINDOW or not self.readers or self.sequel is not None


class Replays:
    """The pages that are being filled or read."""

    def __init__(self, feeds: Feeds, parking: Parking, start: Callable[[Page], None]) -> None:
        self._feeds = feeds
        self._parking = parking
        # Has the topic's function fill a page, as soon as the publisher runs.
        self._start = start
        # {interests: those that can be joined, by where they begin}, without empty entries.
        self._pages: dict[Interests, list[Page]] = {}

    def join(
        self,
        interests: Interests,
        cursor: Cursor,
        *,
        is_judged: bool,
        is_ahead: bool = False,
        until: int = 0,
    ) -> Page:
        """The page to read after this cursor, for one more reader.

        `is_judged`: it is known that the cursor lies on the timeline.
        `is_ahead`: it is ahead of what is published.
        `until`: see `Page.until`.
        """
        page = self._found(
            interests, cursor, until, may_begin_before=is_judged or not cursor.mark, is_ahead=is_ahead
        )
        if page is None:
            page = Page(interests, cursor, until)
            insort(self._pages.setdefault(interests, []), page, key=_BEGIN)
            self._start(page)
        page.readers += 1
        return page

    def leave(self, page: Page) -> None:
        """One reader less; without one the page is gone."""
        page.readers -= 1
        if not page.readers:
            self._unshare(page)
            if page.cancel is not None:
                page.cancel()
            self._parking.release(page.drop_all(and_more=False), size)

    def append(self, page: Page, delivery: Event[Any]) -> None:
        """A commit more."""
        page.append(delivery)
        page.size += size(delivery)
        self._note(page, delivery.index)
        if page.waiting:
            self._parking.wake((page,))

    def end(self, page: Page, sequel: Reached | Broken) -> None:
        """The function has returned, or failed."""
        if page.sequel is None:
            page.sequel = sequel
            if isinstance(sequel, Broken):
                self._unshare(page)
            elif (
                sequel.at > page.cursor.index
            ):  # a cursor that is ahead may be of anything that a client makes up
                self._note(page, sequel.at)
            self._parking.wake((page,))

    def reopen(self, interests: Interests, until: int) -> None:
        """Whoever asks for these from now on wants all of it; the others, if it was finished, up to this commit."""
        for page in self._pages.pop(interests, ()):
            page.until = until

    def forget(self, topics: Container[Topic[Any]]) -> None:
        """Nobody joins a page of these any more: their state was replaced, or the publisher stops."""
        for interests in [each for each in self._pages if any(one.topic in topics for one in each)]:
            for page in self._pages.pop(interests):
                page.is_void = True

    def _found(
        self, interests: Interests, cursor: Cursor, until: int, *, may_begin_before: bool, is_ahead: bool
    ) -> Page | None:
        pages = self._pages.get(interests, ())
        for place in range(bisect_right(pages, cursor.index, key=_BEGIN) - 1, -1, -1):
            page = pages[place]
            if page.until != until:
                continue
            if may_begin_before and _brings_on(page, cursor.index):
                return page
            # It is to be judged, whatever follows; not by a page that could not, because it was ahead of the log.
            if page.cursor == cursor and not may_begin_before and (is_ahead or not _leads_nowhere(page)):
                return page
            if page.cursor.index < cursor.index:
                break
        return None

    def _note(self, page: Page, index: int) -> None:
        """Readers may come there, although nothing of it is published yet."""
        for history in self._feeds.histories_of(page.interests) if not page.is_void else ():
            history.farthest = max(history.farthest, index)

    def _unshare(self, page: Page) -> None:
        pages = self._pages.get(page.interests, [])
        place = bisect_left(pages, page.dropped, key=_BEGIN)
        # There may be very many, but few that begin at the same commit.
        while place < len(pages) and pages[place].dropped == page.dropped:
            if pages[place] is page:
                del pages[place]
                if not pages:
                    del self._pages[page.interests]
                return
            place += 1


def _leads_nowhere(page: Page) -> bool:
    """Whether its function has returned the cursor that it was given."""
    return isinstance(page.sequel, Reached) and page.sequel.at == page.cursor.index


def _brings_on(page: Page, index: int) -> bool:
    """Whether there is something for a reader that is further on, or there will be next."""
    if page.sequel is None:
        return page.last >= index
    return isinstance(page.sequel, Reached) and page.sequel.at > index


_BEGIN: Final = attrgetter("dropped")
