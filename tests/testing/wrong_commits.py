"""Stores whose commits have one bug each, and the checks that are to find them."""

import json
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any
from uuid import UUID

import anyio
import anyio.lowlevel
from testing.memory_store import Disk, MemoryStore, expected_of, last_changes, text_of
from typing_extensions import override

from trio_stream.stores import (
    JSON,
    Change,
    Commit,
    ConflictError,
    Delete,
    Entry,
    EpochIndex,
    Name,
    Operation,
    Put,
    Revoke,
    Store,
)


class Around(MemoryStore):
    """Something happens around each commit."""

    @override
    async def commit(
        self,
        operations: Sequence[Operation],
        *,
        expect: Mapping[Name, int] | None = None,
        id: UUID | None = None,
        if_changed: bool = False,
    ) -> int:
        return await self.around(operations, expect=expect, id=id, if_changed=if_changed)

    async def around(self, operations: Sequence[Operation], **options: Any) -> int:
        return await self.right(operations, **options)

    async def right(self, operations: Sequence[Operation], **options: Any) -> int:
        return await super().commit(operations, **options)


class Changed(MemoryStore):
    """What is put is changed on its way."""

    @override
    def check(self, operations: Sequence[Operation]) -> Sequence[Operation]:
        return [self.change(each) if isinstance(each, Put) else each for each in super().check(operations)]

    def change(self, put: Put) -> Put:
        return replace(put, value=self.change_value(put.value))

    def change_value(self, value: JSON) -> JSON:
        match value:
            case list():
                return [self.change_value(each) for each in value]
            case dict():
                return {key: self.change_value(each) for key, each in value.items()}
            case _:
                return self.change_leaf(value)

    def change_leaf(self, value: JSON) -> JSON:
        return value


class IndexFromASequence(Around):
    """The index is taken first, and the commit is made a while later: perhaps after one with a higher index."""

    @override
    async def around(self, operations: Sequence[Operation], **options: Any) -> int:
        self.check(operations)
        wanted = EpochIndex(1 + max(self.disk.index, getattr(self.disk, "sequence", 0)), self.disk.epoch)
        self.disk.__dict__["sequence"] = wanted
        for _ in range(int(wanted) % 5):
            await anyio.lowlevel.checkpoint()
        index = await self.right(operations, **options)
        if index != self.disk.index or (self.disk.log[:-1] and self.disk.log[-2].index == wanted):
            return index
        commit = replace(self.disk.log.pop(), index=int(wanted))
        for change in commit.operations:
            if isinstance(change, Put):
                self.disk.state[change.name] = replace(
                    self.disk.state[change.name], index=EpochIndex(int(wanted), self.disk.epoch)
                )
        self.disk.log.append(commit)
        self.disk.log.sort(key=lambda each: each.index)
        return EpochIndex(int(wanted), self.disk.epoch, commit.mark)


class IndexOfTheHead(Around):
    """What is returned is the newest index, read a moment later."""

    @override
    async def around(self, operations: Sequence[Operation], **options: Any) -> int:
        await self.right(operations, **options)
        await anyio.lowlevel.checkpoint()
        return EpochIndex(self.disk.index, self.disk.epoch, self.disk.mark)


class IndexIsCounted(Around):
    """The index is that which was the next one when the commit was asked for."""

    @override
    async def around(self, operations: Sequence[Operation], **options: Any) -> int:
        index = self.disk.next_index()
        made = await self.right(operations, **options)
        return index if made == self.disk.index else made


class DeletesOfNothingDoNotCount(MemoryStore):
    @override
    def write(self, tokens: Sequence[str], changes: Sequence[Change], by: UUID | None) -> EpochIndex:
        if not tokens and all(
            isinstance(each, Delete) and each.name not in self.disk.state for each in changes
        ):
            return EpochIndex(self.disk.index, self.disk.epoch, self.disk.mark)
        return super().write(tokens, changes, by)


class Torn(Around):
    """A checkpoint after each 128 operations, which others can see."""

    @override
    async def around(self, operations: Sequence[Operation], **options: Any) -> int:
        changes = last_changes(self.check(operations))
        for change in changes[128:]:
            self.check_not_final(change, {})
        if len(changes) > 128 and not (options["expect"] or options["if_changed"] or options["id"]):
            index = EpochIndex(self.disk.next_index(), self.disk.epoch)
            for start in range(0, len(changes), 128):
                for change in changes[start : start + 128]:
                    if isinstance(change, Put):
                        self.disk.state[change.name] = Entry(change.value, index, change.final)
                await anyio.lowlevel.checkpoint()
        return await self.right(operations, **options)


class SeveralCommitsForALargeOne(Around):
    """Each 128 operations are a commit."""

    @override
    async def around(self, operations: Sequence[Operation], **options: Any) -> int:
        index = 0
        operations = self.check(operations)
        self.check_limits(operations)
        for start in range(0, len(operations), 128):
            index = await self.right(operations[start : start + 128], **options)
            options = {"expect": None, "id": None, "if_changed": False}
        return index


class AppliesBackwards(MemoryStore):
    @override
    def check(self, operations: Sequence[Operation]) -> Sequence[Operation]:
        return super().check(operations)[::-1]


class WritesBeforeItChecks(MemoryStore):
    """What stands before the operation that is refused is done."""

    @override
    def check(self, operations: Sequence[Operation]) -> Sequence[Operation]:
        for number, operation in enumerate(operations):
            try:
                super().check([operation])
            except ValueError:
                if number > 200:
                    first = operations[0]
                    assert isinstance(first, Put)
                    self.disk.state[first.name] = Entry(
                        first.value, EpochIndex(self.disk.index, self.disk.epoch)
                    )
                raise
        return super().check(operations)


class TheFirstOfOneNameCounts(MemoryStore):
    @override
    def check(self, operations: Sequence[Operation]) -> Sequence[Operation]:
        return last_changes(super().check(operations)[::-1])[::-1]


class TakesWhatIsNoJSON(MemoryStore):
    @override
    def check(self, operations: Sequence[Operation]) -> Sequence[Operation]:
        if not operations:
            raise ValueError("nothing")
        return operations

    @override
    def check_limits(self, operations: Sequence[Operation]) -> None:
        pass


class TakesNaN(MemoryStore):
    @override
    def check(self, operations: Sequence[Operation]) -> Sequence[Operation]:
        rest = [
            replace(each, value=None) if isinstance(each, Put) and "NaN" in repr_of(each.value) else each
            for each in operations
        ]
        return super().check(rest)

    @override
    def check_limits(self, operations: Sequence[Operation]) -> None:
        pass


def repr_of(value: JSON) -> str:
    try:
        return json.dumps(value)
    except (TypeError, ValueError, RecursionError):
        return ""


class TakesEmptyCommits(Around):
    @override
    async def around(self, operations: Sequence[Operation], **options: Any) -> int:
        if not operations:
            return EpochIndex(self.disk.index, self.disk.epoch, self.disk.mark)
        return await self.right(operations, **options)


class DepthIsCutShort(Changed):
    @override
    def change_value(self, value: JSON, depth: int = 0) -> JSON:
        match value:
            case list() | dict() if depth > 64:
                return None
            case list():
                return [self.change_value(each, depth + 1) for each in value]
            case dict():
                return {key: self.change_value(each, depth + 1) for key, each in value.items()}
            case _:
                return value


class KeysAreCutShort(Changed):
    @override
    def change(self, put: Put) -> Put:
        return replace(put, key=put.key[:255])


class NamespacesAreCutShort(Changed):
    @override
    def change(self, put: Put) -> Put:
        return replace(put, namespace=put.namespace[:4000])


class LargeNumbersAreFloats(Changed):
    @override
    def change_leaf(self, value: JSON) -> JSON:
        is_large = isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 2**64
        return float(value) if is_large else value  # type: ignore[arg-type]


class LargeNumbersLoseDigits(Changed):
    @override
    def change_leaf(self, value: JSON) -> JSON:
        is_large = isinstance(value, int) and not isinstance(value, bool) and 2**53 < abs(value) < 2**63
        return int(float(value)) if is_large else value  # type: ignore[arg-type]


class WholeFloatsAreIntegers(Changed):
    @override
    def change_leaf(self, value: JSON) -> JSON:
        return int(value) if isinstance(value, float) and value.is_integer() and abs(value) < 1e15 else value


class FloatsLoseDigits(Changed):
    @override
    def change_leaf(self, value: JSON) -> JSON:
        return float(f"{value:.15g}") if isinstance(value, float) else value


class NegativeZeroIsZero(Changed):
    @override
    def change_leaf(self, value: JSON) -> JSON:
        return 0.0 if isinstance(value, float) and value == 0 else value


class BooleansAreNumbers(Changed):
    @override
    def change_leaf(self, value: JSON) -> JSON:
        return int(value) if isinstance(value, bool) else value


class EmptyTextIsNull(Changed):
    @override
    def change_leaf(self, value: JSON) -> JSON:
        return None if value == "" and isinstance(value, str) else value


class TextEndsAtNUL(Changed):
    @override
    def change_leaf(self, value: JSON) -> JSON:
        return value.split("\0")[0] if isinstance(value, str) else value


class TextIsNormalized(Changed):
    @override
    def change_leaf(self, value: JSON) -> JSON:
        return unicodedata.normalize("NFC", value) if isinstance(value, str) else value


class KeysOfObjectsFoldCase(Changed):
    @override
    def change_value(self, value: JSON) -> JSON:
        if isinstance(value, dict):
            return {key.lower(): self.change_value(each) for key, each in value.items()}
        return super().change_value(value)


class NullsInObjectsAreDropped(Changed):
    @override
    def change_value(self, value: JSON) -> JSON:
        if isinstance(value, dict):
            return {key: self.change_value(each) for key, each in value.items() if each is not None}
        return super().change_value(value)


class LargeValuesAreCutShort(Changed):
    @override
    def change_leaf(self, value: JSON) -> JSON:
        return value[: 1 << 19] if isinstance(value, str) else value


class KeepsTheCallersObject(MemoryStore):
    @override
    def check(self, operations: Sequence[Operation]) -> Sequence[Operation]:
        checked = super().check(operations)
        return [
            each if isinstance(each, Put) and isinstance(each.value, list) and text_of(each.value) else mine
            for each, mine in zip(operations, checked, strict=True)
        ]


class FoldsCase(Changed):
    @override
    def change(self, put: Put) -> Put:
        return replace(put, key=put.key.lower())


class NormalizesKeys(Changed):
    @override
    def change(self, put: Put) -> Put:
        return replace(put, key=unicodedata.normalize("NFC", put.key))


class TrimsKeys(Changed):
    @override
    def change(self, put: Put) -> Put:
        return replace(put, key=put.key.rstrip(" ") or put.key)


class TopicsFoldCase(Changed):
    @override
    def change(self, put: Put) -> Put:
        return replace(put, topic=put.topic.lower())


class DeletesInEveryNamespace(MemoryStore):
    @override
    def apply(self, change: Change, index: EpochIndex) -> Change | None:
        if isinstance(change, Delete):
            for name in [name for name in self.disk.state if name[:2] == change.name[:2]]:
                if name != change.name:
                    del self.disk.state[name]
        return super().apply(change, index)


class KeepsTheFirstIndex(MemoryStore):
    @override
    def apply(self, change: Change, index: EpochIndex) -> Change | None:
        before = self.disk.state.get(change.name)
        logged = super().apply(change, index)
        if before is not None and change.name in self.disk.state:
            self.disk.state[change.name] = replace(self.disk.state[change.name], index=before.index)
        return logged


class ForgetsExpectations(MemoryStore):
    @override
    def expect(self, name: Name, expected: EpochIndex) -> None:
        pass


class ZeroIsNoExpectation(MemoryStore):
    @override
    def expect(self, name: Name, expected: EpochIndex) -> None:
        if expected:
            super().expect(name, expected)


class ExpectsAtMost(MemoryStore):
    """An index that is higher than that of the key is fine."""

    @override
    def expect(self, name: Name, expected: EpochIndex) -> None:
        if self.index_of(name) > expected or (self.index_of(name) == 0) != (expected == 0):
            super().expect(name, expected)


class ExpectsWithoutNamespace(MemoryStore):
    @override
    def index_of(self, name: Name) -> int:
        return super().index_of(Name(name.topic, name.key))


class ExpectsTheFirst32(Around):
    @override
    async def around(self, operations: Sequence[Operation], **options: Any) -> int:
        expect = options["expect"] and dict([*options["expect"].items()][:32])
        return await self.right(operations, **{**options, "expect": expect})


class ExpectsNoPlainTuples(Around):
    @override
    async def around(self, operations: Sequence[Operation], **options: Any) -> int:
        expect = {name: at for name, at in (options["expect"] or {}).items() if isinstance(name, Name)}
        return await self.right(operations, **{**options, "expect": expect})


class ExpectsOwnTopicsOnly(Around):
    """An expectation of a topic that the commit does not change is forgotten."""

    @override
    async def around(self, operations: Sequence[Operation], **options: Any) -> int:
        topics = {each.topic for each in operations if not isinstance(each, Revoke)}
        expect = {name: at for name, at in (options["expect"] or {}).items() if name[0] in topics}
        return await self.right(operations, **{**options, "expect": expect})


class ChecksFirstAndWritesLater(Around):
    """Between the look at what is expected and the commit there is a checkpoint."""

    @override
    async def around(self, operations: Sequence[Operation], **options: Any) -> int:
        for name, at in expected_of(options["expect"] or {}, self.epoch).items():
            self.expect(name, at)
        await anyio.lowlevel.checkpoint()
        return await self.right(operations, **{**options, "expect": None})


class ConflictsOfTheWrongName(MemoryStore):
    @override
    def expect(self, name: Name, expected: EpochIndex) -> None:
        try:
            super().expect(name, expected)
        except ConflictError as error:
            raise ConflictError(name._replace(namespace="default"), error.expected, error.actual) from None


class ConflictsWithoutNumbers(MemoryStore):
    @override
    def expect(self, name: Name, expected: EpochIndex) -> None:
        try:
            super().expect(name, expected)
        except ConflictError:
            raise ConflictError(name, int(expected), 0) from None


class CommitsAlthoughCancelled(Around):
    @override
    async def around(self, operations: Sequence[Operation], **options: Any) -> int:
        index = await self.right(operations, **options)
        await anyio.lowlevel.checkpoint()
        return index


class TornByCancellation(Around):
    """Operations from the 200th on are written after a checkpoint; who is cancelled there leaves the first ones."""

    @override
    async def around(self, operations: Sequence[Operation], **options: Any) -> int:
        if len(operations) < 200:
            return await self.right(operations, **options)
        before = dict(self.disk.state)
        self.disk.state.update(
            {
                each.name: Entry(each.value, EpochIndex(self.disk.index, "x"))
                for each in operations[:9]
                if isinstance(each, Put)
            }
        )
        await anyio.lowlevel.checkpoint()
        self.disk.state = before
        return await self.right(operations, **options)


class KeepsItsLockWhenCancelled(Around):
    """Whoever is cancelled while it has the lock keeps it for ever."""

    def __init__(self, disk: Disk) -> None:
        super().__init__(disk)
        self.lock = anyio.Event()
        self.lock.set()

    @override
    async def around(self, operations: Sequence[Operation], **options: Any) -> int:
        await self.lock.wait()
        self.lock = anyio.Event()
        await anyio.lowlevel.checkpoint()
        self.lock.set()
        return await self.right(operations, **options)


class HangsAfterManyCommits(Around):
    @override
    async def around(self, operations: Sequence[Operation], **options: Any) -> int:
        if len(self.disk.log) > 300:
            await anyio.sleep_forever()
        return await self.right(operations, **options)


class FailsWithManyAtOnce(Around):
    """The 65th commit that waits is forgotten, and said to be made."""

    waiting = 0

    @override
    async def around(self, operations: Sequence[Operation], **options: Any) -> int:
        kind = type(self)
        kind.waiting += 1
        try:
            is_one_too_many = kind.waiting > 64
            await anyio.lowlevel.checkpoint()
            if is_one_too_many:
                return EpochIndex(self.disk.index + 1, self.disk.epoch)
            return await self.right(operations, **options)
        finally:
            kind.waiting -= 1


class ReturnsNothing(Around):
    @override
    async def around(self, operations: Sequence[Operation], **options: Any) -> int:
        await self.right(operations, **options)
        return None  # type: ignore[return-value]


class RaisesKeyErrors(MemoryStore):
    @override
    async def get(self, topic: str, key: str, *, namespace: str = "default") -> Entry | None:
        await self.begin()
        return self.disk.state[Name(topic, key, namespace)]


class StopsTheIteration(Around):
    """An exception that means something else to whoever calls."""

    @override
    async def around(self, operations: Sequence[Operation], **options: Any) -> int:
        if not operations:
            raise StopAsyncIteration
        return await self.right(operations, **options)


class LogsWhatWasGiven(MemoryStore):
    """Indexes are written as text, and commits have lists."""

    @override
    def write(self, tokens: Sequence[str], changes: Sequence[Change], by: UUID | None) -> EpochIndex:
        index = super().write(tokens, changes, by)
        commit: Commit = self.disk.log[-1]
        self.disk.log[-1] = replace(commit, operations=list(commit.operations))  # type: ignore[arg-type]
        return index


_VALUES = "values_come_back_as_they_are"
_NAMES = "names_are_kept_apart"
_EXPECT = "an_expectation_holds_or_nothing_changes"

WRONG_COMMITS: dict[type[Store], str] = {
    IndexFromASequence: "writers_share_one_order|all_agree_while_writers_go_on",
    IndexOfTheHead: "writers_share_one_order",
    IndexIsCounted: "writers_share_one_order",
    DeletesOfNothingDoNotCount: "indexes_increase",
    Torn: "a_commit_is_seen_whole",
    SeveralCommitsForALargeOne: "a_commit_is_seen_whole",
    AppliesBackwards: "of_operations_with_one_name_the_last_counts",
    WritesBeforeItChecks: "what_is_invalid_is_refused_as_a_whole",
    TheFirstOfOneNameCounts: "of_operations_with_one_name_the_last_counts",
    TakesWhatIsNoJSON: "what_is_invalid_is_refused_as_a_whole",
    TakesNaN: "what_is_invalid_is_refused_as_a_whole",
    TakesEmptyCommits: "what_is_invalid_is_refused_as_a_whole",
    DepthIsCutShort: _VALUES,
    KeysAreCutShort: "long_names_are_whole",
    NamespacesAreCutShort: "long_names_are_whole",
    LargeNumbersAreFloats: _VALUES,
    LargeNumbersLoseDigits: _VALUES,
    WholeFloatsAreIntegers: _VALUES,
    FloatsLoseDigits: _VALUES,
    NegativeZeroIsZero: _VALUES,
    BooleansAreNumbers: _VALUES,
    EmptyTextIsNull: _VALUES,
    TextEndsAtNUL: _VALUES,
    TextIsNormalized: _VALUES,
    KeysOfObjectsFoldCase: _VALUES,
    NullsInObjectsAreDropped: _VALUES,
    LargeValuesAreCutShort: "large_values_are_whole",
    KeepsTheCallersObject: "what_was_put_does_not_change_later",
    FoldsCase: _NAMES,
    NormalizesKeys: _NAMES,
    TrimsKeys: _NAMES,
    TopicsFoldCase: _NAMES,
    DeletesInEveryNamespace: _NAMES,
    KeepsTheFirstIndex: _EXPECT,
    ForgetsExpectations: _EXPECT,
    ZeroIsNoExpectation: _EXPECT,
    ExpectsAtMost: _EXPECT,
    ExpectsWithoutNamespace: _EXPECT,
    ExpectsTheFirst32: "every_name_that_is_expected_counts",
    ExpectsNoPlainTuples: "indexes_that_were_read_can_be_expected",
    ExpectsOwnTopicsOnly: "an_expectation_holds_or_nothing_changes",
    ChecksFirstAndWritesLater: "of_many_with_one_expectation_one_wins",
    ConflictsOfTheWrongName: "every_name_that_is_expected_counts",
    ConflictsWithoutNumbers: _EXPECT,
    CommitsAlthoughCancelled: "a_cancelled_commit_is_not_made",
    TornByCancellation: "a_cancelled_commit_is_not_made",
    KeepsItsLockWhenCancelled: "a_cancelled_commit_is_not_made",
    HangsAfterManyCommits: "changes_go_on_and_on",
    FailsWithManyAtOnce: "many_commit_at_once",
    ReturnsNothing: "indexes_increase",
    RaisesKeyErrors: "what_was_committed_is_read",
    StopsTheIteration: "what_is_invalid_is_refused_as_a_whole",
    LogsWhatWasGiven: "indexes_increase",
}
