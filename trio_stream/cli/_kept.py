"""The subscribers of the demonstration that have a view follow the catalogue for them."""

from functools import partial
from typing import Final

import anyio
from typing_extensions import override

from trio_stream.stores import JSON, Record
from trio_stream.view import Change, Frozen, View, open_view

from ._audit import Point, Segment, State
from ._followers import CLOSED, Follower
from ._lines import key_text

_PERIOD: Final = 0.05  # seconds between two looks at the view, at least
_SHARE: Final = 20  # a look takes no more than one part in so many of the time


class Kept(Follower):
    """Folds what the view says has changed, and looks at what it shows again and again; both have to be right."""

    _kept: View[str, Record]

    @override
    async def follow(self) -> None:
        connect = partial(self._publisher.subscribe, authorizer=self._may_read)
        async with open_view(connect, self._request) as self._kept, anyio.create_task_group() as tasks:
            self.doing = "is kept"
            await self._kept.wait_current()
            tasks.start_soon(self._look)
            await self._fold()
            tasks.cancel_scope.cancel()
            self._note_point(self._kept.frozen())
            self.doing = "is done"
            self.done.set()

    async def _fold(self) -> None:
        """Returns when it was told everything up to the last commit."""
        async with self._kept.changes() as changes:
            for record in self._kept.values():
                self._apply(record)
            while self._status(self._last) != CLOSED or self.state.entries != _values(self._kept.frozen()):
                self._learn(await anext(changes))

    def _learn(self, change: Change[str, Record]) -> None:
        self.changes += 1
        self._is_live = True
        if change.new is not None:
            self._apply(change.new)
        else:
            self.state.delete(change.key)
            self.latest = f"{key_text(change.key)} deleted"

    async def _look(self) -> None:
        while True:
            begin = anyio.current_time()
            self._note_point(self._kept.frozen())
            figures = self._kept.statistics()
            self.snapshots, self.resumes = figures.snapshots, figures.connections - figures.snapshots
            await anyio.sleep(max(_PERIOD, _SHARE * (anyio.current_time() - begin)))

    def _note_point(self, frozen: Frozen[str, Record]) -> None:
        state = State()
        for key, value in _values(frozen).items():
            state.put(key, value)
        self.segments.append(Segment(self.view, [Point(frozen.index, state.digest)]))


def _values(frozen: Frozen[str, Record]) -> dict[str, JSON]:
    return {key: record.value for key, record in frozen.items()}
