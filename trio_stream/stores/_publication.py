"""What the commits of a store are to the readers of a publisher.

Each event has the mark of its commit, and the record that it replaces, where the log says so: then readers with rights
or a filter that look at the value are told what is gone for them (D19).
A final value finishes the subject of its key.
Any delete opens it again: whether it was finished, the publisher knows better than the log.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple, TypeAlias, assert_never

from trio_stream import Event, Subject, SubscribeRequest, Topic

from ._turns import BURST, Turns
from ._values import Change, Delete, Put, Record

Subjects: TypeAlias = Sequence[tuple[Topic[Any], Subject]]


class Publication(NamedTuple):
    """What a commit has for the readers of some topics."""

    events: Sequence[Event[Record]]
    finished: Subjects
    """The subjects that end with it."""
    opened: Subjects
    """Those that can have events again, if they were finished."""


NOTHING: Final = Publication((), (), ())


class Publications:
    """Makes them for one publisher; `topics` are those that it has, by name.

    With a request they are for those who have made that, and what it does not cover is left out of long commits: the
    core looks through the rest of each in one stretch of the loop.
    """

    def __init__(
        self, topics: Mapping[str, Topic[Record]], request: SubscribeRequest[Record] | None = None
    ) -> None:
        self._topics = topics
        self._request = request

    async def make(self, index: int, mark: str, operations: Sequence[Change], turns: Turns) -> Publication:
        """That of a commit."""
        events: list[Event[Record]] = []
        finished: list[tuple[Topic[Any], Subject]] = []
        opened: list[tuple[Topic[Any], Subject]] = []
        request = self._request if len(operations) > BURST else None
        for start in range(0, len(operations), BURST):
            portion = operations[start : start + BURST]
            await turns.take(len(portion))
            for operation in portion:
                topic = self._topics.get(operation.topic)
                if topic is None:
                    continue
                if request is not None and not request.covers(
                    topic, Subject(operation.key, operation.namespace)
                ):
                    continue
                events.append(_event(topic, index, mark, operation))
                if isinstance(operation, Delete):
                    opened.append((topic, Subject(operation.key, operation.namespace)))
                elif operation.final:
                    finished.append((topic, Subject(operation.key, operation.namespace)))
        return Publication(events, finished, opened)  # noqa: ASYNC910 - `turns` sees to it

    def only(self, request: SubscribeRequest[Record]) -> "Publications":
        """Those of what is asked for."""
        names = [each.topic.name for each in request.interests]
        return Publications({name: self._topics[name] for name in names}, request)


def _event(topic: Topic[Record], index: int, mark: str, operation: Change) -> Event[Record]:
    key, namespace = operation.key, operation.namespace
    match operation:
        case Put():
            record = Record(key, operation.value, "put", namespace)
        case Delete():
            record = Record(key, None, "delete", namespace)
        case _:
            assert_never(operation)
    previous = Record(key, operation.previous, "put", namespace) if operation.replaces else None
    return Event(topic, index, record, previous=previous, mark=mark)
