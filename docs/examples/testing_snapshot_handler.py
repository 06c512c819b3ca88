"""A snapshot function is checked, and one that reads the index at another moment than the state is found."""

from dataclasses import dataclass, field

import trio

from trio_stream import Event, SnapshotAppender, SubscribeRequest, Topic
from trio_stream.testing import Model, PromiseBroken, State, check_snapshot_handler


@dataclass(frozen=True, slots=True)
class Flag:
    subject: str
    is_on: bool


FLAGS = Topic[Flag]("flags")
REQUEST = SubscribeRequest(FLAGS)


@dataclass
class Flags:
    commits: list[list[Event[Flag]]] = field(default_factory=list)
    state: dict[str, Event[Flag]] = field(default_factory=dict)

    def turn(self, name: str, *, is_on: bool) -> None:
        event = Event(FLAGS, len(self.commits) + 1, Flag(name, is_on))
        self.commits.append([event])
        self.state[name] = event

    async def snapshot(self, request: SubscribeRequest[Flag], snapshot: SnapshotAppender[Flag]) -> int:
        index = len(self.commits)
        for event in self.wanted(request):
            await snapshot.append([event])
        return index

    async def careless_snapshot(
        self, request: SubscribeRequest[Flag], snapshot: SnapshotAppender[Flag]
    ) -> int:
        for event in self.wanted(request):
            await snapshot.append([event])
        return len(self.commits)  # of now, and not of the state above

    def wanted(self, request: SubscribeRequest[Flag]) -> list[Event[Flag]]:
        return [event for name, event in self.state.items() if request.key in {"", name}]


def apply(state: State, event: Event[Flag]) -> None:
    for flag in event.payloads:
        state[flag.subject] = flag.is_on


async def main() -> None:
    flags = Flags()
    flags.turn("dark-mode", is_on=True)
    flags.turn("beta", is_on=False)

    async def meanwhile() -> None:
        flags.turn("beta", is_on=True)

    model = Model(request=REQUEST, commits=flags.commits, apply=apply)
    for handler in (flags.snapshot, flags.careless_snapshot):
        try:
            await check_snapshot_handler(handler, REQUEST, model=model, at_append=meanwhile)
        except PromiseBroken as broken:
            print(handler.__name__, "is wrong:", broken.promise)
            print("   ", broken.difference)
        else:
            print(handler.__name__, "is right")
        flags.turn("beta", is_on=False)


trio.run(main)
