"""Forked processes side by side, each of which says what it does next and how long that may take."""

import json
import os
import resource
import selectors
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import Any, Final, Generic, NoReturn, TypeAlias, TypeVar

T = TypeVar("T")
Say: TypeAlias = Callable[[str, float], None]  # what comes next, and the seconds after which it hangs
Task: TypeAlias = Callable[[Say], Any]  # what it returns goes through JSON

START: Final = 60.0  # seconds until a child has to say something
MEMORY: Final = 4 << 30  # bytes that a child may take
PROCESSOR: Final = 600  # seconds of it


def forked(task: Callable[[], object]) -> None:
    """Runs this in a process of its own, and waits for that."""
    if (child := os.fork()) == 0:
        _run(task)
    try:
        _, status = os.waitpid(child, 0)
    except BaseException:
        os.kill(child, signal.SIGTERM)  # which ends its own children
        os.waitpid(child, 0)
        raise
    if status:
        raise RuntimeError(f"a child has ended with {os.waitstatus_to_exitcode(status)}")


def _run(task: Callable[[], object]) -> NoReturn:
    code = 1
    try:
        task()
        code = 0
    finally:  # what the parent would do on its way out is not for its child
        os._exit(code)


class _Child(Generic[T]):
    """One of them, as its parent sees it."""

    def __init__(self, what: T, task: Task) -> None:
        self.what = what
        self.deadline = time.monotonic() + START
        # Its last two words: what it does, and what it has returned, in a list.
        self._doing = "its start"
        self._returned: list[Any] = []
        # What was read of a line that is not whole.
        self._rest = b""
        self.pipe, writing = os.pipe()
        self._pid = os.fork()
        if self._pid == 0:
            _run(lambda: _work(task, writing))
        os.close(writing)

    def read(self) -> bool:
        """Hears what it says; False if that was all."""
        data = os.read(self.pipe, 1 << 16)
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            match json.loads(line):
                case [doing, seconds]:
                    self._doing, self.deadline = doing, time.monotonic() + seconds
                case [result]:
                    self._returned = [result]
        return bool(data)

    def end(self, why: str) -> Any:
        """What its task has returned; if it has not, what it did, and why it was not done."""
        with suppress(ProcessLookupError):
            os.killpg(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)
        os.close(self.pipe)
        return self._returned[0] if self._returned else f"{self._doing} {why}"


def _work(task: Task, pipe: int) -> None:
    os.setsid()  # so that what it starts ends with it
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (PROCESSOR, PROCESSOR))
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in range(3):
        os.dup2(nothing, stream)

    def say(*words: object) -> None:
        os.write(pipe, json.dumps(words).encode() + b"\n")

    say(task(say))


def results(tasks: Iterable[tuple[T, Task]], at_once: int) -> Iterator[tuple[T, Any]]:
    """Runs each task in a child, so many at once, and gives what they return as they end."""
    waiting = iter(tasks)
    children: set[_Child[T]] = set()
    with selectors.DefaultSelector() as selector:

        def over(child: _Child[T], why: str) -> tuple[T, Any]:
            children.remove(child)
            selector.unregister(child.pipe)
            return child.what, child.end(why)

        try:
            while True:
                while len(children) < at_once and (task := next(waiting, None)) is not None:
                    children.add(child := _Child(*task))
                    selector.register(child.pipe, selectors.EVENT_READ, child)
                if not children:
                    return
                soonest = min(child.deadline for child in children)
                for key, _ in selector.select(max(0.0, soonest - time.monotonic())):
                    if not key.data.read():
                        yield over(key.data, "crashes")
                for child in [child for child in children if child.deadline <= time.monotonic()]:
                    yield over(child, "hangs")
        finally:
            for child in children:
                child.end("is not waited for")
