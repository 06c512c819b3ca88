"""A page is made with the state; its live connection goes on from there, however late it comes."""

from dataclasses import dataclass

import trio

from trio_stream import (
    Cursor,
    Event,
    EventPublisher,
    SnapshotAppender,
    SubscribeRequest,
    Topic,
    open_publisher,
)


@dataclass(frozen=True, slots=True)
class Score:
    subject: str
    points: int


SCORES = Topic[Score]("scores")


class Game:
    """A store that writes a mark with each commit. A backup of it can be put in its place."""

    def __init__(self) -> None:
        self.cursor = Cursor(0, "game")
        self.points: dict[str, int] = {}

    def score(self, publisher: EventPublisher, name: str, mark: str) -> None:
        self.cursor = Cursor(self.cursor.index + 1, "game", mark)
        self.points[name] = self.points.get(name, 0) + 1
        publisher.publish([Event(SCORES, self.cursor.index, Score(name, self.points[name]))], mark=mark)

    async def snapshot(self, _: SubscribeRequest[Score], snapshot: SnapshotAppender[Score]) -> Cursor:
        cursor, points = self.cursor, dict(self.points)  # no await in between
        for name, value in points.items():
            await snapshot.append([Event(SCORES, cursor.index, Score(name, value))])
        return cursor


async def page(publisher: EventPublisher) -> str:
    """What the server sends: the state, and where it is from."""
    async with publisher.subscribe(SubscribeRequest(SCORES)) as subscription:
        points: dict[str, int] = {}
        for event in await subscription.receive_until_current():
            points |= {score.subject: score.points for score in event.payloads}
        cursor = str(subscription.cursor)
    return f'<body data-cursor="{cursor}">{points}</body>'


def request_of(text: str) -> SubscribeRequest[Score]:
    """What a client asks for that sends this as its cursor; it may be anything."""
    try:
        cursor = Cursor.parse(text)
    except ValueError:
        return SubscribeRequest(SCORES)
    return SubscribeRequest(SCORES).after(cursor)


async def connect(publisher: EventPublisher, text: str) -> None:
    print("connected with", repr(text))
    async with publisher.subscribe(request_of(text)) as subscription:
        for event in await subscription.receive_until_current():
            print("   ", event.index, event.framing or event.payloads)


async def main() -> None:
    game = Game()
    async with open_publisher({SCORES: game.snapshot}, epoch="game") as publisher:
        game.score(publisher, "anna", "k3")
        sent = await page(publisher)
        print(sent)
        cursor = sent.split('"')[1]
        backup = game.cursor, dict(game.points)

        await connect(publisher, cursor)
        game.score(publisher, "ben", "x7")
        await connect(publisher, cursor)
        newest = str(publisher.cursor)
        await connect(publisher, "anything")

    # The backup takes the place of the store while nothing runs, and commit 2 is another one now.
    game.cursor, game.points = backup
    begin = game.cursor
    async with open_publisher(
        {SCORES: game.snapshot}, index=begin.index, epoch=begin.epoch, mark=begin.mark
    ) as publisher:
        await connect(publisher, cursor)
        game.score(publisher, "cleo", "p1")
        await connect(publisher, newest)


trio.run(main)
