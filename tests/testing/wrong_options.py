"""Stores whose ids, final values, revocations or limits have one bug each, and the checks that are to find them."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from typing import Any
from uuid import UUID

import anyio.lowlevel
from testing.memory_store import Disk, MemoryStore, last_changes
from testing.wrong_commits import Around
from typing_extensions import override

from trio_stream import Cursor, Event, SnapshotAppender, SubscribeRequest
from trio_stream.stores import (
    Change,
    Commit,
    ConflictError,
    Delete,
    Entry,
    EpochIndex,
    Limits,
    Name,
    Operation,
    Put,
    Record,
    Revocations,
    Revoke,
    Store,
)


class IdsOfTheHandle(MemoryStore):
    def __init__(self, disk: Disk) -> None:
        super().__init__(disk)
        self.ids: dict[UUID, EpochIndex] = {}

    @override
    def made_by(self, by: UUID) -> EpochIndex | None:
        return self.ids.get(by)

    @override
    def remember(self, by: UUID, index: EpochIndex) -> None:
        self.ids[by] = index


class IdsAreIgnored(MemoryStore):
    @override
    def made_by(self, by: UUID) -> EpochIndex | None:
        return None


class IdsAreCompacted(MemoryStore):
    @override
    def trim(self, old: Sequence[Commit]) -> None:
        super().trim(old)
        self.disk.ids = {by: index for by, index in self.disk.ids.items() if index > self.disk.floor}


class TheLastHundredIds(MemoryStore):
    @override
    def remember(self, by: UUID, index: EpochIndex) -> None:
        super().remember(by, index)
        self.disk.ids = dict([*self.disk.ids.items()][-100:])


class IdsAreCutShort(MemoryStore):
    @override
    def made_by(self, by: UUID) -> EpochIndex | None:
        return super().made_by(UUID(int=by.int >> 64))

    @override
    def remember(self, by: UUID, index: EpochIndex) -> None:
        super().remember(UUID(int=by.int >> 64), index)


class IdsReturnTheNewest(MemoryStore):
    @override
    def made_by(self, by: UUID) -> EpochIndex | None:
        found = super().made_by(by)
        return found and EpochIndex(self.disk.index, self.disk.epoch, self.disk.mark)


class ExpectationsBeforeIds(Around):
    """A repeat is refused if what it expected is not so any more."""

    @override
    async def around(self, operations: Sequence[Operation], **options: Any) -> int:
        for name, at in (options["expect"] or {}).items():
            self.expect(name, EpochIndex(at, self.disk.epoch))
        return await self.right(operations, **options)


class IdsAreUsedUpByWhatIsRefused(Around):
    @override
    async def around(self, operations: Sequence[Operation], **options: Any) -> int:
        try:
            return await self.right(operations, **options)
        except (ConflictError, ValueError):
            if options["id"] is not None:
                self.remember(options["id"], EpochIndex(self.disk.index, self.disk.epoch, self.disk.mark))
            raise


class IdsAreLookedUpEarly(Around):
    """Between the look and the commit there is a checkpoint, so that two may look first."""

    @override
    async def around(self, operations: Sequence[Operation], **options: Any) -> int:
        by = options.pop("id")
        if by is not None and (before := self.made_by(by)) is not None:
            await anyio.lowlevel.checkpoint()
            return before
        index = EpochIndex(await self.right(operations, id=None, **options), self.disk.epoch, self.disk.mark)
        if by is not None:
            self.remember(by, index)
        return index


class EqualAsInPython(MemoryStore):
    @override
    def is_change(self, change: Change) -> bool:
        entry = self.disk.state.get(change.name)
        if entry is None or isinstance(change, Delete):
            return super().is_change(change)
        return bool((entry.value, entry.final) != (change.value, change.final))


class EverythingIsAChange(MemoryStore):
    @override
    def is_change(self, change: Change) -> bool:
        return True


class OnlyValuesAreChanges(MemoryStore):
    @override
    def is_change(self, change: Change) -> bool:
        entry = self.disk.state.get(change.name)
        if isinstance(change, Put) and entry is not None:
            return super().is_change(replace(change, final=entry.final))
        return super().is_change(change)


class DeletesAreChanges(MemoryStore):
    @override
    def is_change(self, change: Change) -> bool:
        return isinstance(change, Delete) or super().is_change(change)


class OneChangeIsAll(Around):
    """If there is any change, what changes nothing is written too."""

    @override
    async def around(self, operations: Sequence[Operation], **options: Any) -> int:
        changes = last_changes(self.check(operations))
        if any(self.is_change(each) for each in changes):
            options["if_changed"] = False
        return await self.right(operations, **options)


class RevocationsAreNoChanges(Around):
    @override
    async def around(self, operations: Sequence[Operation], **options: Any) -> int:
        if options["if_changed"]:
            changes = [each for each in operations if not isinstance(each, Revoke)]
            if changes and not any(self.is_change(each) for each in last_changes(changes)):
                operations = changes
        return await self.right(operations, **options)


class ZeroIfNothingChanges(Around):
    @override
    async def around(self, operations: Sequence[Operation], **options: Any) -> int:
        head = self.disk.index
        index = await self.right(operations, **options)
        return 0 if options["if_changed"] and index == head else index


class FinalIsNoPromise(MemoryStore):
    @override
    def check_not_final(self, change: Change, expect: Mapping[Name, int]) -> None:
        pass


class FinalOfTheHandle(MemoryStore):
    def __init__(self, disk: Disk) -> None:
        super().__init__(disk)
        self.mine: set[Name] = set()

    @override
    def apply(self, change: Change, index: EpochIndex) -> Change | None:
        if isinstance(change, Put) and change.final:
            self.mine.add(change.name)
        return super().apply(change, index)

    @override
    def check_not_final(self, change: Change, expect: Mapping[Name, int]) -> None:
        if change.name in self.mine:
            super().check_not_final(change, expect)


class FinalForEver(MemoryStore):
    """A delete does not free it."""

    @override
    def check_not_final(self, change: Change, expect: Mapping[Name, int]) -> None:
        finished = self.disk.__dict__.setdefault("finished", set())
        if isinstance(change, Put) and change.name in finished:
            raise ConflictError(change.name, 0, 0, is_final=True)
        super().check_not_final(change, expect)

    @override
    def apply(self, change: Change, index: EpochIndex) -> Change | None:
        if isinstance(change, Put) and change.final:
            self.disk.__dict__.setdefault("finished", set()).add(change.name)
        return super().apply(change, index)


class DeletedAndPutIsFree(Around):
    """A delete before it in the same commit lets a put through."""

    @override
    async def around(self, operations: Sequence[Operation], **options: Any) -> int:
        self.freed = {each.name for each in operations if isinstance(each, Delete)}
        return await self.right(operations, **options)

    @override
    def check_not_final(self, change: Change, expect: Mapping[Name, int]) -> None:
        if change.name not in self.freed:
            super().check_not_final(change, expect)


class EqualToFinalIsFine(MemoryStore):
    @override
    def check_not_final(self, change: Change, expect: Mapping[Name, int]) -> None:
        if self.is_change(change):
            super().check_not_final(change, expect)


class FinalIsCheckedLate(MemoryStore):
    """After the operations before it have been written."""

    @override
    def check_not_final(self, change: Change, expect: Mapping[Name, int]) -> None:
        try:
            super().check_not_final(change, expect)
        except ConflictError:
            name = change.name._replace(key="b")
            if name in self.disk.state:
                self.disk.state[name] = replace(self.disk.state[name], value="torn")
            raise


class FinalWithoutSayingSo(MemoryStore):
    @override
    def check_not_final(self, change: Change, expect: Mapping[Name, int]) -> None:
        try:
            super().check_not_final(change, expect)
        except ConflictError as error:
            raise ConflictError(error.name, error.expected, error.actual) from None


class FinalIsNotRead(MemoryStore):
    @override
    async def get(self, topic: str, key: str, *, namespace: str = "default") -> Entry | None:
        entry = await super().get(topic, key, namespace=namespace)
        return entry and replace(entry, final=False)


class FinalIsNotListed(MemoryStore):
    @override
    def rows(self, topic: str, namespace: str, prefix: str) -> Sequence[tuple[str, Entry]]:
        return [(key, replace(entry, final=False)) for key, entry in super().rows(topic, namespace, prefix)]


class SnapshotsNeverFinish(MemoryStore):
    @override
    async def snapshot(
        self, request: SubscribeRequest[Record], snapshot: SnapshotAppender[Record]
    ) -> int | Cursor:
        return await super().snapshot(request, _NoEnd(snapshot))


class _NoEnd(SnapshotAppender[Record]):
    def __init__(self, snapshot: SnapshotAppender[Record]) -> None:
        self.snapshot = snapshot

    @override
    async def append(self, events: Iterable[Event[Record]], /) -> bool:
        return await self.snapshot.append(events)

    @override
    def finish(self) -> None:
        pass


class SnapshotsOfAllFinish(MemoryStore):
    """As soon as there is anything final in it."""

    @override
    async def snapshot(
        self, request: SubscribeRequest[Record], snapshot: SnapshotAppender[Record]
    ) -> int | Cursor:
        index = await super().snapshot(request, snapshot)
        if not request.key and any(entry.final for _, entry in self.covered(request)):
            snapshot.finish()
        return index


class RevocationsAreCompacted(MemoryStore):
    @override
    def trim(self, old: Sequence[Commit]) -> None:
        super().trim(old)
        self.disk.revoked = {
            digest: index for digest, index in self.disk.revoked.items() if index > self.disk.floor
        }


class RevocationsOfTheHandle(MemoryStore):
    def __init__(self, disk: Disk) -> None:
        super().__init__(disk)
        self.mine: set[str] = set()

    @override
    def revoke(self, token: str, index: int) -> str:
        digest = super().revoke(token, index)
        self.mine.add(digest)
        return digest

    @override
    async def revocations(self) -> Revocations:
        found = await super().revocations()
        return replace(
            found, newest={digest: at for digest, at in found.newest.items() if digest in self.mine}
        )


class TokensAreNotHidden(MemoryStore):
    @override
    def revoke(self, token: str, index: int) -> str:
        self.disk.revoked[token] = index
        return token


class DigestsWithoutSalt(MemoryStore):
    @override
    def revoke(self, token: str, index: int) -> str:
        salt, self.disk.salt = self.disk.salt, b""
        try:
            return super().revoke(token, index)
        finally:
            self.disk.salt = salt


class ASaltEachTime(MemoryStore):
    def __init__(self, disk: Disk) -> None:
        super().__init__(disk)
        disk.salt = bytes([disk.salt[0] ^ 1, *disk.salt[1:]])


class NoSalt(MemoryStore):
    def __init__(self, disk: Disk) -> None:
        disk.salt = b""
        super().__init__(disk)


class TokensAreTrimmed(MemoryStore):
    @override
    def revoke(self, token: str, index: int) -> str:
        return super().revoke(token.strip(), index)


class RevocationsKeepTheirPlace(MemoryStore):
    """A token that is revoked again keeps its first index."""

    @override
    def revoke(self, token: str, index: int) -> str:
        before = dict(self.disk.revoked)
        digest = super().revoke(token, index)
        if digest in before:
            self.disk.revoked = before
        return digest


class OneRevocationOfACommit(MemoryStore):
    @override
    def write(self, tokens: Sequence[str], changes: Sequence[Change], by: UUID | None) -> EpochIndex:
        return super().write(tokens[:1], changes, by)


class RevocationsAreNotLogged(MemoryStore):
    @override
    def write(self, tokens: Sequence[str], changes: Sequence[Change], by: UUID | None) -> EpochIndex:
        index = super().write(tokens, changes, by)
        self.disk.log[-1] = replace(self.disk.log[-1], revoked=())
        return index


class AThousandRevocations(MemoryStore):
    @override
    def revoke(self, token: str, index: int) -> str:
        digest = super().revoke(token, index)
        self.disk.revoked = dict([*self.disk.revoked.items()][-1_000:])
        return digest


class NoFloorOfRevocations(MemoryStore):
    @override
    async def revocations(self) -> Revocations:
        return replace(await super().revocations(), floor=0)


class EndlessRevocations(MemoryStore):
    """More than anybody has to remember."""

    @override
    def revoke(self, token: str, index: int) -> str:
        digest = super().revoke(token, index)
        every = self.disk.__dict__.setdefault("every", {})
        every.pop(digest, None)
        every[digest] = index
        return digest

    @override
    async def revocations(self) -> Revocations:
        found = await super().revocations()
        return replace(found, newest=dict(self.disk.__dict__.get("every", {})))


class NoLimits(MemoryStore):
    @override
    def check_limits(self, operations: Sequence[Operation]) -> None:
        pass


class LimitsInCharacters(MemoryStore):
    @override
    def check_limits(self, operations: Sequence[Operation]) -> None:
        if len(operations) < 5 and all(
            isinstance(each, Revoke) or len(each.key) <= self.limits.key for each in operations
        ):
            is_short = [each for each in operations if isinstance(each, Revoke) or each.key.isascii()]
            return super().check_limits(is_short)
        return super().check_limits(operations)


class LimitsOfKeysOnly(MemoryStore):
    @override
    def check_limits(self, operations: Sequence[Operation]) -> None:
        rest = [
            each if isinstance(each, Revoke) else replace(each, topic="t", namespace="n")
            for each in operations
        ]
        super().check_limits(rest)


class OneLessThanTheLimit(MemoryStore):
    @override
    def check_limits(self, operations: Sequence[Operation]) -> None:
        limits = self.limits
        if len(operations) == limits.operations:
            self.refuse("operations", limits.operations, len(operations))
        super().check_limits(operations)


class LimitsAreLookedAtLate(Around):
    """When everything before it has been written."""

    @override
    def check_limits(self, operations: Sequence[Operation]) -> None:
        try:
            super().check_limits(operations)
        except ValueError:
            for each in operations[:1]:
                if isinstance(each, Put):
                    self.disk.state[each.name] = Entry(
                        each.value, EpochIndex(self.disk.index, self.disk.epoch)
                    )
            raise


class LimitsWithoutNumbers(MemoryStore):
    @override
    def refuse(self, what: str, limit: int, actual: int) -> None:
        super().refuse(what, actual, limit)


class LimitsOfNothing(MemoryStore):
    @property
    @override
    def limits(self) -> Limits:
        return Limits(0, 0, 0, 0)


class FirstEdition:
    """The protocol of the first edition."""

    def __init__(self, disk: Disk) -> None:
        self.store = MemoryStore(disk)
        self.head = self.store.head
        self.get = self.store.get
        self.snapshot = self.store.snapshot
        self.changes = self.store.changes
        self.compact = self.store.compact

    async def commit(
        self, operations: Sequence[Operation], *, expect: Mapping[Name, int] | None = None
    ) -> int:
        return await self.store.commit(operations, expect=expect)

    def list(self, topic: str, *, namespace: str = "default") -> AbstractAsyncContextManager[Any]:
        return self.store.list(topic, namespace=namespace)


_IF_CHANGED = "what_changes_nothing_is_left_out"
_FINAL = "what_is_final_stays"
_REVOKED = "what_is_revoked_is_told"

WRONG_OPTIONS: dict[type[Store], str] = {
    IdsOfTheHandle: "an_id_is_of_one_commit",
    IdsAreIgnored: "an_id_is_of_one_commit",
    IdsAreCompacted: "an_id_is_of_one_commit",
    TheLastHundredIds: "every_id_is_remembered",
    IdsAreCutShort: "every_id_is_remembered",
    IdsReturnTheNewest: "every_id_is_remembered",
    ExpectationsBeforeIds: "an_id_is_of_one_commit",
    IdsAreUsedUpByWhatIsRefused: "an_id_that_was_refused_is_free",
    IdsAreLookedUpEarly: "an_id_that_many_use_at_once_is_of_one_commit",
    EqualAsInPython: _IF_CHANGED,
    EverythingIsAChange: _IF_CHANGED,
    OnlyValuesAreChanges: _IF_CHANGED,
    DeletesAreChanges: _IF_CHANGED,
    OneChangeIsAll: _IF_CHANGED,
    RevocationsAreNoChanges: _IF_CHANGED,
    ZeroIfNothingChanges: _IF_CHANGED,
    FinalIsNoPromise: _FINAL,
    FinalOfTheHandle: _FINAL,
    FinalForEver: _FINAL,
    DeletedAndPutIsFree: _FINAL,
    EqualToFinalIsFine: _FINAL,
    FinalIsCheckedLate: _FINAL,
    FinalWithoutSayingSo: _FINAL,
    FinalIsNotRead: _FINAL,
    FinalIsNotListed: _FINAL,
    SnapshotsNeverFinish: "a_snapshot_says_whether_its_key_is_final",
    SnapshotsOfAllFinish: "a_snapshot_says_whether_its_key_is_final",
    RevocationsAreCompacted: _REVOKED,
    RevocationsOfTheHandle: _REVOKED,
    TokensAreNotHidden: _REVOKED,
    DigestsWithoutSalt: _REVOKED,
    ASaltEachTime: _REVOKED,
    NoSalt: _REVOKED,
    TokensAreTrimmed: _REVOKED,
    RevocationsKeepTheirPlace: _REVOKED,
    OneRevocationOfACommit: _REVOKED,
    RevocationsAreNotLogged: _REVOKED,
    AThousandRevocations: _REVOKED,
    NoFloorOfRevocations: "the_newest_revocations_are_remembered",
    EndlessRevocations: "the_newest_revocations_are_remembered",
    NoLimits: "no_more_operations_than_the_limit",
    LimitsInCharacters: "no_longer_names_than_the_limit",
    LimitsOfKeysOnly: "no_longer_names_than_the_limit",
    OneLessThanTheLimit: "no_more_operations_than_the_limit",
    LimitsAreLookedAtLate: "no_longer_names_than_the_limit",
    LimitsWithoutNumbers: "no_longer_names_than_the_limit",
    LimitsOfNothing: "the_protocol_is_all_there",
    FirstEdition: "the_protocol_is_all_there",  # type: ignore[dict-item]
}
