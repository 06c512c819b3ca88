"""A small state store in memory, as an application would have one, and the fold that its readers apply.

It remembers its state after every commit, so that a test can compare what a reader has with what was true.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from typing_extensions import override

from trio_stream import (
    Event,
    EventPublisher,
    Payload,
    SnapshotAppender,
    Subject,
    SubscribeRequest,
    Subscription,
    Topic,
    WouldBlock,
)

State = dict[Subject, str]


@dataclass(frozen=True, slots=True)
class Health(Payload):
    """How one service is; None says that it is gone. Readers: a set of keys, or of `key=value`, that may be seen."""

    key: str
    value: str | None = "ok"
    namespace: str = "default"

    @property
    @override
    def subject(self) -> Subject:
        return Subject(self.key, self.namespace)

    @override
    def has_read_permission(self, authorizer: frozenset[str], /) -> bool:
        return self.key in authorizer or f"{self.key}={self.value}" in authorizer

    @override
    def withdrawn(self) -> "Health":
        return Health(self.key, None, self.namespace)


HEALTH = Topic[Health]("health")
JOBS = Topic[Health]("jobs")


def event(
    index: int,
    key: str,
    value: str | None = "ok",
    *,
    namespace: str = "default",
    topic: Topic[Health] = HEALTH,
) -> Event[Health]:
    return Event(topic, index, Health(key, value, namespace))


def apply(state: State, received: Event[Health]) -> None:
    """Folds one received event into the reader's state."""
    if received.is_new_snapshot_to_follow:
        state.clear()
    for single in received.events:
        payload = single.payload
        assert isinstance(payload, Health)
        if payload.value is None:
            state.pop(payload.subject, None)
        else:
            state[payload.subject] = payload.value


@dataclass
class Catalogue:
    """The store. `commit` commits and then publishes; `snapshot` is its snapshot function for every topic."""

    publisher: EventPublisher | None = None
    index: int = 0
    runs: int = 0  # of the snapshot function
    # {topic: {subject: value}} after each commit, by index
    states: dict[int, dict[Topic[Health], State]] = field(default_factory=lambda: {0: {}})
    # of the commit that a key is from, {(topic, subject): index}
    modified: dict[tuple[Topic[Health], Subject], int] = field(default_factory=dict)

    def commit(
        self,
        *changes: tuple[str, str | None],
        topic: Topic[Health] = HEALTH,
        namespace: str = "default",
        finish: Sequence[str] = (),
        reopen: Sequence[str] = (),
    ) -> int:
        """One commit of (key, value) changes, after which these keys are finished; None deletes. Returns its index.

        Before them keys are reopened.
        """
        events = [event(self.index + 1, k, v, topic=topic, namespace=namespace) for k, v in changes]
        finished, reopened = ([(topic, Subject(key, namespace)) for key in keys] for keys in (finish, reopen))
        return self.commit_events(events, finish=finished, reopen=reopened)

    def commit_events(
        self,
        events: Iterable[Event[Health]],
        *,
        finish: Sequence[tuple[Topic[Health], Subject]] = (),
        reopen: Sequence[tuple[Topic[Health], Subject]] = (),
    ) -> int:
        commit = list(events)
        states = {topic: dict(state) for topic, state in self.states[self.index].items()}
        for single in commit:
            apply(states.setdefault(single.topic, {}), single)
            assert isinstance(single.payload, Health)
            self.modified[single.topic, single.payload.subject] = single.index
        self.index = commit[0].index if commit else self.index + 1
        self.states[self.index] = states
        if self.publisher is not None and (finish or reopen):
            self.publisher.publish(commit, index=self.index, finish=finish, reopen=reopen)
        elif self.publisher is not None:
            self.publisher.publish(commit)
        return self.index

    def state_at(self, index: int, request: SubscribeRequest[Health]) -> State:
        """S(index): what the request's reader must hold after the commit with this index."""
        newest = max(known for known in self.states if known <= index)
        state = self.states[newest].get(request.topic, {})
        return {subject: value for subject, value in state.items() if request.covers(request.topic, subject)}

    async def snapshot(self, request: SubscribeRequest[Health], snapshot: SnapshotAppender[Health]) -> int:
        """A snapshot function: consistent at the index at which it is called."""
        self.runs += 1
        index, modified_at = self.index, dict(self.modified)
        for subject, value in self.state_at(index, request).items():
            modified = modified_at[request.topic, subject]
            await snapshot.append(
                [Event(request.topic, modified, Health(subject.key, value, subject.namespace))]
            )
        return index


def kinds(events: Iterable[Event[Health]]) -> list[str]:
    """What a test compares: `marker`, `eos@7`, or `3:web=ok` with `+` between the events of one commit."""

    def kind(received: Event[Health]) -> str:
        if received.is_new_snapshot_to_follow:
            return "marker"
        if received.is_end_of_snapshot:
            return f"eos@{received.index}"
        singles = (single.payload for single in received.events)
        return f"{received.index}:" + "+".join(f"{p.key}={p.value}" for p in singles if isinstance(p, Health))

    return [kind(received) for received in events]


async def until_live(subscription: Subscription[Health]) -> list[Event[Health]]:
    """Everything up to and with end-of-snapshot."""
    events: list[Event[Health]] = []
    while not (events and events[-1].is_end_of_snapshot):
        events.append(await subscription.receive())
    return events


def ready(subscription: Subscription[Health]) -> list[Event[Health]]:
    """Everything that is ready now."""
    events: list[Event[Health]] = []
    try:
        while True:
            events.append(subscription.receive_nowait())
    except WouldBlock:
        return events
