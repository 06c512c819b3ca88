"""How records and events are written: as text for people, as JSON for programs; one line each."""

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import assert_never

from trio_stream import Cursor, Event, Framing
from trio_stream.stores import JSON, Entry, Record

from ._watched import Watched


def json_line(fields: Mapping[str, JSON]) -> str:
    """One JSON object, which is one line for whoever splits lines at more than a newline, too."""
    return f"{_dumps(fields, (',', ':'))}\n"


def value_text(value: JSON) -> str:
    """JSON for people; what would move the cursor of a terminal is escaped."""
    return _dumps(value, (", ", ": "))


def _dumps(value: JSON, separators: tuple[str, str]) -> str:
    text = json.dumps(value, ensure_ascii=False, separators=separators)
    return text if text.isprintable() else json.dumps(value, separators=separators)


def key_text(key: str) -> str:
    """The key as it is, if it is one printable word; otherwise as a JSON string."""
    return key if key.isprintable() and " " not in key and not key.startswith('"') else value_text(key)


def entry_line(key: str, entry: Entry) -> str:
    """A key of `list`, for people."""
    return f"{entry.index:>8}  {key_text(key)}  {value_text(entry.value)}\n"


def entry_fields(topic: str, namespace: str, key: str, entry: Entry) -> dict[str, JSON]:
    """A key of `get` and `list`, for programs."""
    return {"topic": topic, "namespace": namespace, "key": key, "index": entry.index, "value": entry.value}


def event_text(event: Event[Record], watched: Watched, *, is_live: bool) -> str:
    """What a subscription delivers, for people: a line per record; those of one commit share its index."""
    match event.framing:
        case Framing.END_OF_SNAPSHOT:
            return f"-- end of snapshot at {event.index}; changes as they are committed:\n"
        case Framing.NEW_SNAPSHOT_TO_FOLLOW:
            return "-- new snapshot to follow: what was shown so far is out of date\n"
        case None:
            return "".join(
                _record_line(each.index, record, watched.place(each.topic.name, record), is_live=is_live)
                for each, record in _records(event)
            )
        case kind:
            assert_never(kind)


def event_line(event: Event[Record], epoch: str, watched: Watched, *, is_live: bool) -> str:
    """What a subscription delivers, for programs: always one line, so that a commit is never torn."""
    match event.framing:
        case Framing.END_OF_SNAPSHOT | Framing.NEW_SNAPSHOT_TO_FOLLOW as framing:
            kind = framing.value
        case None:
            kind = "latest" if event.is_conflated else "commit" if is_live else "snapshot"
        case another:
            assert_never(another)
    can_resume = kind in {"commit", "latest", "end-of-snapshot"}
    return json_line(
        {
            "type": kind,
            **watched.members(),
            "index": event.index,
            "epoch": epoch,
            "cursor": str(Cursor(event.index, epoch, event.mark)) if can_resume else None,
            "events": [watched.fields(each.topic.name, record) for each, record in _records(event)],
        }
    )


def _records(event: Event[Record]) -> Iterator[tuple[Event[Record], Record]]:
    for each in event.events:
        assert isinstance(each.payload, Record)
        yield each, each.payload


def place_text(place: Iterable[str]) -> str:
    """A key, and where it is if that must be said."""
    return "  ".join(map(key_text, place))


def _record_line(index: int, record: Record, place: Iterable[str], *, is_live: bool) -> str:
    if record.is_delete:
        return f"{index:>8}  delete  {place_text(place)}\n"
    return f"{index:>8}  {'put' if is_live else 'has':<6}  {place_text(place)}  {value_text(record.value)}\n"
