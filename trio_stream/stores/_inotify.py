"""Notices from the Linux kernel that a file was written to or replaced, see inotify(7).

Python has no interface to inotify, so its three functions are called in the C library.
A descriptor that becomes readable is all that is used of it: what was read says only that a look is worth
while, so that events which the kernel merges or drops are no loss.

There are no notices on other systems, without a free instance (a user has 128 by default), without a free
watch, and from a file system that does not send any.
So the caller must also look for changes without a notice, only less often.

All of it blocks and belongs in a worker thread, except `take`; the kernel needs up to 25 ms to close an instance.
"""

import ctypes
import os
import sys
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final, Self

# From <sys/inotify.h>; the same on every architecture.
_MODIFY: Final = 0x002
_ATTRIB: Final = 0x004  # also when a name of the file was removed, or another file was renamed over it
_DELETE_SELF: Final = 0x400
_MOVE_SELF: Final = 0x800

REPLACED: Final = _ATTRIB | _DELETE_SELF | _MOVE_SELF
WRITTEN: Final = _MODIFY | REPLACED

_MOST_READ: Final = 1 << 16  # bytes at a time; the rest keeps the descriptor readable


class Inotify:
    """One instance, and the files that it watches."""

    @classmethod
    def open(cls) -> Self | None:
        """None if there are no notices here."""
        if sys.platform != "linux":
            return None
        try:
            library = ctypes.CDLL(None)
            descriptor = library.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        except (AttributeError, OSError):  # Python is linked statically
            return None
        return None if descriptor < 0 else cls(library, descriptor)

    def __init__(self, library: ctypes.CDLL, descriptor: int) -> None:
        self.descriptor: Final = descriptor
        self._library = library
        self._watches: set[int] = set()

    def watch(self, files: Iterable[tuple[Path, int]]) -> bool:
        """Watches these files and no others, each for its mask; False if that cannot be done for all of them."""
        watches = {
            self._library.inotify_add_watch(self.descriptor, os.fsencode(path), mask) for path, mask in files
        }
        for stale in self._watches - watches:
            self._library.inotify_rm_watch(self.descriptor, stale)  # fails if its file is gone
        self._watches = {watch for watch in watches if watch >= 0}
        return self._watches == watches

    def take(self) -> bool:
        """Whether there was a notice since the last call."""
        with suppress(BlockingIOError):
            return bool(os.read(self.descriptor, _MOST_READ))
        return False

    def close(self) -> None:
        """Nobody may wait for the descriptor any more."""
        os.close(self.descriptor)
