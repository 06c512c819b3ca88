"""The turns of the event loop that long work leaves to others, however little an engine waits."""

from typing import Final

import anyio.lowlevel

BURST: Final = 64  # events between two checkpoints, unless one commit has more


class Turns:
    """Of one task: counts what it does."""

    def __init__(self) -> None:
        # Events since the last checkpoint.
        self._burst = 0

    async def take(self, events: int) -> None:  # noqa: ASYNC910 - every BURST events there is one
        """A checkpoint, unless so many more fit into this stretch of the loop."""
        if self._burst + events > BURST:
            await anyio.lowlevel.checkpoint()
            self._burst = 0
        self._burst += events
