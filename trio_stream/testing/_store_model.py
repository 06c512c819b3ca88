"""What a store should hold and tell: a dict and a list of commits, and how to compare them with what is found."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias, cast

from trio_stream.stores import Change, Commit, Delete, Entry, Name, Operation, Put, Revoke, token_digest

from ._store_guard import brief

State: TypeAlias = Mapping[Name, Entry]


@dataclass
class Model:
    """The commits of one check, and the state that they make, in the topics of that check."""

    salt: bytes = b""
    """That of the store, where there are revocations."""
    state: dict[Name, Entry] = field(default_factory=dict)
    log: list[Commit] = field(default_factory=list)
    revoked: dict[str, int] = field(default_factory=dict)

    def effect(self, operations: Sequence[Operation], *, if_changed: bool = False) -> Sequence[Change]:
        """What a commit of these changes, each change with what it replaces: what the log has to tell of it."""
        changes = [self._with_previous(change) for change in last_changes(operations)]
        changes = [change for change in changes if isinstance(change, Put) or change.replaces]
        return [change for change in changes if not if_changed or self._is_change(change)]

    def finished(self, changes: Iterable[Change]) -> Sequence[Name]:
        """The names that these would put although they are finished."""
        return [each.name for each in changes if isinstance(each, Put) and self._is_final(each.name)]

    def index_of(self, name: Name) -> int:
        """The commit that put it there; 0 if it does not exist."""
        entry = self.state.get(name)
        return 0 if entry is None else int(entry.index)

    def add(
        self, index: int, operations: Sequence[Operation], *, mark: str = "", if_changed: bool = False
    ) -> Commit:
        """One more commit."""
        changes = self.effect(operations, if_changed=if_changed)
        for change in changes:
            if isinstance(change, Put):
                self.state[change.name] = Entry(change.value, index, change.final)
            else:
                del self.state[change.name]
        digests = [token_digest(token, self.salt) for token in revoked_tokens(operations)]
        for digest in digests:
            self.revoked.pop(digest, None)
            self.revoked[digest] = index
        self.log.append(Commit(index, tuple(changes), mark, tuple(digests)))
        return self.log[-1]

    def rows(self, topic: str, namespace: str = "default", prefix: str = "") -> list[tuple[str, Entry]]:
        """What `Store.list` should give."""
        return rows_of(self.state, topic, namespace, prefix)

    def _with_previous(self, change: Change) -> Change:
        entry = self.state.get(change.name)
        if entry is None:
            return replace(change, previous=None, replaces=False)
        return replace(change, previous=entry.value, replaces=True)

    def _is_change(self, change: Change) -> bool:
        return (
            isinstance(change, Delete)
            or not change.replaces
            or exact(change.value) != exact(change.previous)
            or self._is_final(change.name) != change.final
        )

    def _is_final(self, name: Name) -> bool:
        entry = self.state.get(name)
        return entry is not None and entry.final


def rows_of(
    state: State, topic: str, namespace: str = "default", prefix: str = ""
) -> list[tuple[str, Entry]]:
    """The rows of one topic and namespace, in order."""
    return sorted(
        (
            (name.key, entry)
            for name, entry in state.items()
            if name.topic == topic and name.namespace == namespace and name.key.startswith(prefix)
        ),
        key=lambda row: row[0],
    )


def states_of(log: Iterable[Commit], before: int) -> dict[int, dict[Name, Entry]]:
    """The state after each commit, by its index; and the empty one from `before` them."""
    state: dict[Name, Entry] = {}
    states = {before: state}
    for commit in log:
        state = {**state}
        for change in commit.operations:
            if isinstance(change, Put):
                state[change.name] = Entry(change.value, commit.index, change.final)
            else:
                state.pop(change.name, None)
        states[commit.index] = state
    return states


def last_changes(operations: Sequence[Operation]) -> Sequence[Change]:
    """Of several changes of one name the last, in the order of those."""
    last = {each.name: each for each in operations if not isinstance(each, Revoke)}
    return [each for each in operations if not isinstance(each, Revoke) and last[each.name] is each]


def revoked_tokens(operations: Sequence[Operation]) -> Sequence[str]:
    """The tokens of these, each once, in order."""
    return list(dict.fromkeys(each.token for each in operations if isinstance(each, Revoke)))


def exact(value: object) -> object:
    """Something that is equal for the same only: 1, 1.0 and True differ, a list is no tuple.

    Of a commit everything counts but its mark.
    """
    kind = type(value)
    if kind is str or kind is int or value is None:
        return value
    if kind is list:
        return [exact(each) for each in cast("list[object]", value)]
    match value:
        case Put() | Delete():
            return _exact_change(value)
        case Entry():
            return ("entry", exact(value.value), int(value.index), value.final)
        case Commit():
            return ("commit", int(value.index), [exact(each) for each in value.operations], value.revoked)
        case dict():
            return {key: exact(each) for key, each in value.items()}
        case tuple():
            return ("tuple", *[exact(each) for each in value])
        case bool() | float():
            return (kind.__name__, repr(value))
        case _:
            return value


def _exact_change(change: Change) -> tuple[object, ...]:
    done = ("put", exact(change.value), change.final) if isinstance(change, Put) else ("delete",)
    return (*done, *change.name, change.replaces, exact(change.previous))


def difference(found: object, expected: object) -> str:
    """The first place where they differ, in words."""
    match found, expected:
        case list(), list():
            return _of_lists(found, expected)
        case dict(), dict():
            return _of_dicts(found, expected)
        case _:
            return f"{brief(found)}, not {brief(expected)}"


def _of_lists(found: list[object], expected: list[object]) -> str:
    for place, (one, other) in enumerate(zip(found, expected, strict=False)):
        if exact(one) != exact(other):
            return f"{len(found)} of them, number {place} is {brief(one)}, not {brief(other)}"
    if len(found) > len(expected):
        return f"{len(found)} of them, not {len(expected)}; one too many is {brief(found[len(expected)])}"
    return f"{len(found)} of them, not {len(expected)}; the first that is missing is {brief(expected[len(found)])}"


def _of_dicts(found: dict[object, object], expected: dict[object, object]) -> str:
    for key, value in expected.items():
        if key not in found:
            return f"{brief(key)} is missing"
        if exact(found[key]) != exact(value):
            return f"{brief(key)} is {brief(found[key])}, not {brief(value)}"
    return f"{brief(next(key for key in found if key not in expected))} is too many"
