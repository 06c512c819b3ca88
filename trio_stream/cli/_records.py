"""What records ask a store to do: those of any file, and the lines of `watch --json`."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from trio_stream.stores import JSON, Change, Delete, Put

from ._formats import Record, missing
from ._json import fault_of
from ._lines import value_text
from ._paths import Missing, member
from ._text import RecordError

KEY_HINT: Final = "; --key says which one is the key"
_CHANGES: Final = ("commit", "latest")
_WATCHED: Final = ("snapshot", "end-of-snapshot", *_CHANGES, "new-snapshot-to-follow")


class Line(NamedTuple):
    """What a record asks for, and the number of its line."""

    number: int
    operation: Change


@dataclass(slots=True)
class Batch:
    """What is to be committed together."""

    lines: list[Line] = field(default_factory=list)
    snapshot: "Snapshot | None" = None
    """One that is complete with these lines."""


class Snapshot(NamedTuple):
    """What a log of `watch --json` said that there was; all other keys were gone."""

    keys: set[str]
    only: str | None
    """The key that the log is about; None if it is about all."""
    prefix: str
    """What the keys that the log is about begin with."""

    def removes(self, key: str) -> bool:
        """Whether it says that there is no such key."""
        return key not in self.keys and self.only in {None, key} and key.startswith(self.prefix)


class Reader:
    """Makes batches of the records of a file; one thread at a time.

    `column`: the path of the column or member that is the key, the value is then the whole record.
    None: the records have `key` and `value`, and other members are ignored, or they are lines of `watch --json`.
    """

    def __init__(
        self, records: Iterator[tuple[int, Record]], *, topic: str, namespace: str, column: str | None
    ) -> None:
        self._records = records
        self._topic = topic
        self._namespace = namespace
        self._column = column
        # The keys of the snapshot that a log of watch is in, None outside of one.
        self._seen: set[str] | None = None

    def read(self, most: int) -> Batch:
        """The next records; none at the end. Blocks. `RecordError` at the first one that cannot be imported."""
        batch = Batch()
        lines = batch.lines
        try:
            for number, record in self._records:
                try:
                    if self._column is None and "events" in record and "value" not in record:
                        batch.snapshot = self._follow(number, record, lines)
                    else:
                        lines.append(Line(number, self._put(number, record)))
                except ValueError as error:
                    raise RecordError(number, str(error)) from error
                if len(lines) >= most or batch.snapshot is not None:
                    break
        except RecordError:
            check_values(lines)  # an earlier line may be bad, too
            raise
        return batch

    def _put(self, number: int, record: Record) -> Put:
        if self._column is None:
            try:
                key, value = record["key"], record["value"]
            except KeyError as error:
                raise missing(number, error.args[0], record, KEY_HINT) from None
        else:
            found = member(record, self._column)
            if isinstance(found, Missing):
                raise missing(number, self._column, record, "")
            key, value = found, record
        if type(key) is not str:
            key = key_of(number, key)
        return Put(self._topic, key, value, self._namespace)

    def _follow(self, number: int, record: Record, lines: list[Line]) -> Snapshot | None:
        """Does what a line of `watch --json` says; returns the snapshot that ends with it."""
        kind, only, prefix = record.get("type"), record.get("key"), record.get("prefix", "")
        if kind not in _WATCHED or not (only is None or isinstance(only, str)) or not isinstance(prefix, str):
            raise RecordError(number, "has events, but is no line of `watch --json`")
        if "topics" in record or "all_namespaces" in record:
            raise RecordError(
                number, "is of several topics or namespaces; what can be imported is the log of one"
            )
        if kind == "new-snapshot-to-follow":
            self._seen = None
        elif kind not in _CHANGES and self._seen is None:
            self._seen = set()
        for operation in self._events(number, record["events"]):
            lines.append(Line(number, operation))
            if self._seen is not None:
                match operation:
                    case Put():
                        self._seen.add(operation.key)
                    case Delete():
                        self._seen.discard(operation.key)
        if kind == "end-of-snapshot":
            assert self._seen is not None
            keys, self._seen = self._seen, None
            return Snapshot(keys, only, prefix)
        return None

    def _events(self, number: int, events: JSON) -> Iterator[Change]:
        for event in events if isinstance(events, list) else [events]:
            match event:
                case {"type": "put", "key": str(key), "value": value}:
                    yield Put(self._topic, key, value, self._namespace)
                case {"type": "delete", "key": str(key)}:
                    yield Delete(self._topic, key, self._namespace)
                case _:
                    raise RecordError(number, "an event of it is neither a put nor a delete")


def key_of(number: int, key: JSON) -> str:
    """The key that a record names; whole numbers are taken, too."""
    match key:
        case str():
            return key
        case int() if not isinstance(key, bool):
            return str(key)
        case _:
            raise RecordError(number, f"the key is {value_text(key)}, neither text nor a whole number")


def check_values(lines: Sequence[Line]) -> None:
    """Raises a `RecordError` for the first of them that no store would take."""
    for line in lines:
        if isinstance(line.operation, Put) and (fault := fault_of(line.operation.value)):
            raise RecordError(line.number, fault)
