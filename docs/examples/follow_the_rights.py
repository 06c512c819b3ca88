"""A document whose readers change, and four who watch it: each agrees with the store after every commit."""

import pickle
from dataclasses import dataclass
from typing import Any

import anyio

from trio_stream import Event, Payload, SnapshotAppender, SubscribeRequest, Topic, open_publisher


@dataclass(frozen=True)
class Plan(Payload):
    text: str = ""  # a deleted plan has none
    users: str = ""  # "ab": Ann and Bob may read it
    subject: str = "plan"

    def has_read_permission(self, user: str, /) -> bool:
        return user in self.users

    def withdrawn(self) -> "Plan":
        return Plan()


PLANS = Topic[Plan]("plans")
STORE = [Plan(), Plan("red", "ab"), Plan("red secret", "a"), Plan("secret", "a"), Plan("blue", "ab"), Plan()]
WAYS: dict[str, dict[str, Any]] = {"all": {}, "Bob": {"authorizer": "b"}, "Bob, away": {"authorizer": "b"}}
WAYS["red"] = {"where": lambda plan: plan.text.startswith("red")}


async def main() -> None:
    async def snapshot(_: SubscribeRequest[Plan], appender: SnapshotAppender[Plan]) -> int:
        await appender.append([Event(PLANS, index := publisher.index, STORE[index])])
        return index

    async with open_publisher({PLANS: snapshot}) as publisher:
        readers = {name: publisher.subscribe(SubscribeRequest(PLANS), **way) for name, way in WAYS.items()}
        held = dict.fromkeys(WAYS, "")
        for index, plan in enumerate(STORE[1:], 1):
            request = readers["Bob, away"].resume_request()  # this one misses every commit
            readers["Bob, away"].unsubscribe()
            publisher.publish([Event(PLANS, index, plan, previous=STORE[index - 1] if index > 1 else None)])
            readers["Bob, away"] = publisher.subscribe(request, **WAYS["Bob, away"])
            shown = {"all": True, "red": plan.text.startswith("red")}  # and to Bob, if he may read it
            for name, reader in readers.items():
                events = await reader.receive_until_current()
                held[name] = [held[name], *(each.text for event in events for each in event.payloads)][-1]
                assert held[name] == (plan.text if shown.get(name, "b" in plan.users) else "")
                assert name in shown or b"secret" not in pickle.dumps(events)
            print(index, held)


for backend in ("trio", "asyncio"):
    anyio.run(main, backend=backend)
