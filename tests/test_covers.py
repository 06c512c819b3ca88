"""What a request asks for is said in one place, and a snapshot has nothing else."""

from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import anyio
import pytest
from catalogue import HEALTH, JOBS, Health, event, kinds, until_live
from scenes import opened

from trio_stream import (
    Event,
    InvalidCommitError,
    PayloadEvents,
    SnapshotAppender,
    SnapshotFailed,
    Subject,
    SubscribeRequest,
    Topic,
)
from trio_stream.testing import cancel_at_every_checkpoint

WEB = SubscribeRequest(HEALTH, "web")
ALL = SubscribeRequest(HEALTH)
TEAM = SubscribeRequest(HEALTH, "web", namespace="team", partition="west")
WHOLE_TEAM = SubscribeRequest(HEALTH, namespace="team", partition="west")
SUBJECTS: list[Subject | str] = [
    "web",
    "Web",
    "",
    Subject("db"),
    Subject("web", "team"),
    Subject("web", "team", "west"),
    Subject("db", "team", "west"),
    Subject("", "team", "west"),
]


@pytest.mark.parametrize(
    ("request_", "covered"),
    [
        (WEB, ["web"]),
        (ALL, ["web", "Web", "", Subject("db")]),
        (TEAM, [Subject("web", "team", "west")]),
        (
            WHOLE_TEAM,
            [Subject("web", "team", "west"), Subject("db", "team", "west"), Subject("", "team", "west")],
        ),
    ],
    ids=["key", "blank key", "key elsewhere", "blank key elsewhere"],
)
def test_a_request_covers_its_key_or_every_key_of_its_namespace(
    request_: SubscribeRequest[Health], covered: list[Subject | str]
) -> None:
    assert [subject for subject in SUBJECTS if request_.covers(HEALTH, subject)] == covered
    assert not any(request_.covers(JOBS, subject) for subject in SUBJECTS)


def test_where_a_request_begins_and_whose_it_is_does_not_matter() -> None:
    request = SubscribeRequest(HEALTH, "web", token="t", index=7, epoch="e")
    assert request.covers(Topic("health"), "web")
    assert not request.covers(HEALTH, "db")


@pytest.mark.parametrize("subject", [None, 7, b"web", ("web", "default", "default"), Subject(7)], ids=repr)  # type: ignore[arg-type]
def test_what_is_no_subject_cannot_be_asked_about(subject: Any) -> None:
    """D18."""
    with pytest.raises(TypeError, match="subject"):
        WEB.covers(HEALTH, subject)


def test_what_is_no_topic_cannot_be_asked_about() -> None:
    """D18: a name is not taken for its topic."""
    with pytest.raises(TypeError, match="topic"):
        WEB.covers("health", "web")  # type: ignore[arg-type]


EVERYTHING = [
    event(1, "web"),
    event(1, "db"),
    event(2, "web", namespace="team"),
    event(3, "api", namespace="other"),
    event(3, "web", "3"),
]


async def appends_everything(_: SubscribeRequest[Health], snapshot: SnapshotAppender[Health]) -> int:
    """As a handler whose store has other namespaces, and does not look at the request."""
    for single in EVERYTHING:
        await snapshot.append([single])
    await snapshot.append(event(4, key) for key in ("web", "db", "api"))
    await snapshot.append([event(4, "api", namespace="team"), event(4, "db", namespace="other")])
    return 4


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("request_", "shown"),
    [
        (WEB, ["1:web=ok", "3:web=3", "4:web=ok", "eos@4"]),
        (ALL, ["1:web=ok", "1:db=ok", "3:web=3", "4:web=ok+db=ok+api=ok", "eos@4"]),
        (SubscribeRequest(HEALTH, namespace="team"), ["2:web=ok", "4:api=ok", "eos@4"]),
        (SubscribeRequest(HEALTH, "api", namespace="other"), ["3:api=ok", "eos@4"]),
        (SubscribeRequest(HEALTH, "nobody"), ["eos@4"]),
        (TEAM, ["eos@4"]),
    ],
    ids=["key", "blank key", "namespace", "key of a namespace", "no such key", "partition"],
)
async def test_what_was_not_asked_for_is_dropped_from_a_snapshot(
    request_: SubscribeRequest[Health], shown: list[str]
) -> None:
    """D3: what is left of a group stays in order, and what is left of one event is no batch."""
    async with opened(appends_everything) as (_, publisher), publisher.subscribe(request_) as subscription:
        received = await until_live(subscription)
        assert kinds(received) == shown
        for single in received:
            assert isinstance(single.payload, PayloadEvents) == (len(single.events) > 1)


@pytest.mark.anyio
async def test_the_changes_that_follow_are_only_those_that_were_asked_for() -> None:
    """D3: the state of a reader has no row that is never changed again."""
    async with (
        opened(appends_everything, index=4) as (_, publisher),
        publisher.subscribe(SubscribeRequest(HEALTH, namespace="team")) as subscription,
    ):
        await until_live(subscription)
        publisher.publish([event(5, "web"), event(5, "web", "5", namespace="team")])
        assert kinds([await subscription.receive()]) == ["5:web=5"]


@pytest.mark.anyio
async def test_a_group_of_which_nothing_is_left_is_still_a_checkpoint() -> None:
    """D12: a handler that appends only such groups can be cancelled, and gives way."""
    counted: list[int] = []

    async def handler(_: SubscribeRequest[Health], snapshot: SnapshotAppender[Health]) -> int:
        async def append() -> None:
            await snapshot.append([event(1, "db")])

        counted.append(await cancel_at_every_checkpoint(append))
        return 1

    async with opened(handler) as (_, publisher), publisher.subscribe(WEB) as subscription:
        assert kinds(await until_live(subscription)) == ["eos@1"]
    assert counted == [1]


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("group", "match"),
    [
        ([event(1, "db"), event(1, "db", topic=JOBS)], "jobs"),
        ([event(1, "db"), event(2, "db")], "different indexes"),
        ([event(-1, "db")], "negative"),
        ([event(1, "db"), Event(HEALTH, 1, object())], "object has no subject"),
    ],
    ids=["topic", "indexes", "index", "subject"],
)
@pytest.mark.parametrize("request_", [WEB, ALL], ids=["not covered", "covered"])
async def test_misuse_is_refused_whether_it_was_asked_for_or_not(
    request_: SubscribeRequest[Health], group: list[Event[Any]], match: str
) -> None:
    """D18: and an event of another topic is misuse, it is no row of another namespace."""

    async def handler(_: SubscribeRequest[Health], snapshot: SnapshotAppender[Health]) -> int:
        with pytest.raises(InvalidCommitError, match=match):
            await snapshot.append(group)
        await snapshot.append([event(1, "web")])
        return 2

    async with opened(handler) as (_, publisher), publisher.subscribe(request_) as subscription:
        assert kinds(await until_live(subscription)) == ["1:web=ok", "eos@2"]


@pytest.mark.anyio
@pytest.mark.parametrize(
    "append",
    [
        lambda snapshot: snapshot.append(None),
        lambda snapshot: snapshot.append("web"),
        lambda snapshot: snapshot.append(event(1, "web")),
    ],
    ids=["none", "text", "one event"],
)
async def test_what_is_not_several_events_cannot_be_appended(
    append: Callable[[Any], Awaitable[None]],
) -> None:
    """D18."""

    async def handler(_: SubscribeRequest[Health], snapshot: SnapshotAppender[Health]) -> int:
        with pytest.raises(TypeError, match=r"append\(\) takes an iterable of events"):
            await append(snapshot)
        return 1

    async with opened(handler) as (_, publisher), publisher.subscribe(WEB) as subscription:
        assert kinds(await until_live(subscription)) == ["eos@1"]


@pytest.mark.anyio
async def test_a_generator_that_ends_the_subscription_while_it_is_appended_is_read_by_nobody() -> None:
    """D13: what was being appended goes nowhere, and the publisher goes on."""

    async def handler(_: SubscribeRequest[Health], snapshot: SnapshotAppender[Health]) -> int:
        def ends() -> Iterable[Event[Health]]:
            subscription.close()
            yield event(1, "web")

        await snapshot.append(ends())
        return 1

    async with opened(handler) as (_, publisher):
        subscription = publisher.subscribe(WEB)
        await anyio.wait_all_tasks_blocked()
        assert publisher.statistics().topics["health"].snapshots == 0


@pytest.mark.anyio
async def test_an_error_of_a_subject_is_the_cause_of_the_failed_snapshot() -> None:
    """D16: it passes through `append`."""

    class Unreadable:
        @property
        def subject(self) -> str:
            raise OSError("gone")

    async def handler(_: SubscribeRequest[Any], snapshot: SnapshotAppender[Any]) -> int:
        await snapshot.append([Event(HEALTH, 1, Unreadable())])
        return 1

    async with opened(handler) as (_, publisher), publisher.subscribe(WEB) as subscription:
        with pytest.raises(SnapshotFailed) as raised:
            await until_live(subscription)
        assert isinstance(raised.value.__cause__, OSError)
