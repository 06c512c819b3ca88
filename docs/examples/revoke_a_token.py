"""Read permissions, and what happens when they change."""

from dataclasses import dataclass

import trio
from trio.testing import wait_all_tasks_blocked
from typing_extensions import override

from trio_stream import (
    CloseReason,
    Event,
    EventPublisher,
    Payload,
    SnapshotAppender,
    SubscribeRequest,
    SubscriptionForceClosed,
    Topic,
    close_subscription_event,
    open_publisher,
)


@dataclass(frozen=True)
class Grants:
    """What one token may read: the authorizer."""

    teams: frozenset[str]


@dataclass(frozen=True)
class Document(Payload):
    title: str
    team: str

    @property
    @override
    def subject(self) -> str:
        return self.title

    @override
    def has_read_permission(self, grants: Grants, /) -> bool:
        return self.team in grants.teams


DOCUMENTS = Topic[Document]("documents")
STORE = {"plan": Document("plan", "red"), "budget": Document("budget", "blue")}
GRANTS = {"secret-1": Grants(frozenset({"red", "blue"}))}  # {token: grants}


async def snapshot_of_documents(
    request: SubscribeRequest[Document], snapshot: SnapshotAppender[Document]
) -> int:
    for title, document in STORE.items():
        if request.key in {"", title}:
            await snapshot.append([Event(DOCUMENTS, 1, document)])
    return 1


async def follow(publisher: EventPublisher, token: str) -> None:
    request = SubscribeRequest(DOCUMENTS, token=token)
    while token in GRANTS:
        titles: set[str] = set()  # nothing is kept from before
        async with publisher.subscribe(request, authorizer=GRANTS[token]) as subscription:
            try:
                async for event in subscription:
                    titles |= {one.payload.title for one in event.events if isinstance(one.payload, Document)}
                    if event.is_end_of_snapshot:
                        print("may read", sorted(titles))
            except SubscriptionForceClosed as closed:
                if closed.reason is not CloseReason.TOKEN:
                    raise
                print("rights have changed")
    print("may read nothing")


async def main() -> None:
    async with (
        open_publisher({DOCUMENTS: snapshot_of_documents}) as publisher,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(follow, publisher, "secret-1")
        await wait_all_tasks_blocked()

        GRANTS["secret-1"] = Grants(frozenset({"blue"}))  # first the rights,
        closed = publisher.close_subscriptions(["secret-1"])  # then the readers
        print("closed", closed)
        await wait_all_tasks_blocked()

        del GRANTS["secret-1"]
        publisher.publish([close_subscription_event(["secret-1"])])  # does the same


trio.run(main)
