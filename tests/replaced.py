"""A catalogue whose events say what they replace, readers who see some of it, and what they may have of a commit."""

from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from catalogue import HEALTH, JOBS, Catalogue, Health, State
from typing_extensions import override

from trio_stream import Event, EventPublisher, SnapshotFunc, Source, Topic, open_publisher


@dataclass
class Replacing(Catalogue):
    """Each of its events has what was there as its `previous`."""

    @override
    def commit_events(self, events: Iterable[Event[Health]], **more: Any) -> int:
        return super().commit_events(list(self._with_previous(events)), **more)

    def _with_previous(self, events: Iterable[Event[Health]]) -> Iterator[Event[Health]]:
        state = {topic: dict(rows) for topic, rows in self.states[self.index].items()}
        for each in events:
            payload = each.payload
            assert isinstance(payload, Health)
            rows = state.setdefault(each.topic, {})
            yield replace(each, previous=previous_in(rows, payload))
            rows[payload.subject] = payload.value  # type: ignore[assignment]  # None: it is gone


def previous_in(rows: State, payload: Health) -> Health | None:
    """What this payload replaces."""
    value = rows.get(payload.subject)
    return None if value is None else replace(payload, value=value)


@asynccontextmanager
async def replacing(
    handler: SnapshotFunc[Health] | None = None, **options: Any
) -> AsyncIterator[tuple[Replacing, EventPublisher]]:
    """Such a catalogue and its publisher; `handler` stands in for its snapshot function of HEALTH."""
    store = Replacing(index=options.get("index", 0))
    store.states[store.index] = {}
    sources = {HEALTH: Source(handler or store.snapshot, wide=True), JOBS: Source(store.snapshot, wide=True)}
    async with open_publisher(sources, **options) as publisher:
        store.publisher = publisher
        yield store, publisher


@dataclass
class Asked:
    """An authorizer and a filter that both look at the value, and note what they are asked."""

    can_read: Callable[[str], bool] = lambda value: "r" in value
    wants: Callable[[str], bool] = lambda value: "w" in value
    log: list[str] = field(default_factory=list)

    def __contains__(self, asked: object) -> bool:
        """Of the authorizer, by a key first, and then by `key=value`."""
        _, is_value, value = str(asked).partition("=")
        if is_value:
            self.log.append(f"read {value}")
        return bool(is_value) and self.can_read(value)

    def where(self, payload: Health) -> bool:
        self.log.append(f"where {payload.value}")
        return self.wants(str(payload.value))


def changes(*each: tuple[Topic[Health], str, str | None, str | None], index: int) -> list[Event[Health]]:
    """A commit of (topic, key, what was there, what is there now)."""
    return [
        Event(topic, index, Health(key, new), previous=None if old is None else Health(key, old))
        for topic, key, old, new in each
    ]


def change(index: int, old: str | None, new: str | None, key: str = "web") -> Event[Health]:
    """One change of HEALTH."""
    (event,) = changes((HEALTH, key, old, new), index=index)
    return event
