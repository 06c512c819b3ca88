"""What a commit is while somebody waits for it, in every engine.

An `Order` is encoded and held against the limits first, without the store: that gives a `Draft`.
Then, in its transaction, the engine reads what is there under the names of the draft, and `settle` says what the
commit comes to.
"""

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple, TypeAlias
from uuid import UUID

from ._errors import ConflictError, LimitExceededError
from ._json import encode_change, encode_value, is_same_json, with_previous
from ._values import (
    Change,
    EpochIndex,
    Limits,
    Name,
    Operation,
    Put,
    Revoke,
    revoked_tokens,
)

_LONGEST_LOG_TEXT: Final = 3  # times the bytes of a commit: what it replaces is in the log, too


class Order(NamedTuple):
    """A commit that somebody waits for."""

    operations: Sequence[Operation]
    expect: Mapping[Name, int]
    epoch: str
    """The one that the store was known to be in when this was asked for; "" where any will do."""
    id: UUID | None = None
    if_changed: bool = False


Key: TypeAlias = tuple[str, str, str]
"""The three parts of a `Name`: equal to it, and made in a quarter of the time."""

Outcome: TypeAlias = EpochIndex | Exception
"""The index of a commit, or why it was not made. A `BusyError` says that it was not begun, and may be asked again."""


class Written(NamedTuple):
    """A change as it is written."""

    change: Change
    name: Key
    value: str
    """The JSON of what is put."""
    item: str
    """Its item in the log's text."""


class Present(NamedTuple):
    """What is there under a name."""

    value: str
    """As JSON; "" if it cannot be read."""
    since: int
    """The index of the commit that put it there."""
    final: bool


class Draft(NamedTuple):
    """An order that is encoded, and within the limits."""

    order: Order
    changes: Sequence[Written]
    """The last one of each name."""
    tokens: Sequence[str]
    names: Sequence[Key]
    """Those of the changes and of `expect`, each once."""


class Effects(NamedTuple):
    """What a commit does."""

    changes: Sequence[Written]
    """Those that it makes, in order."""
    text: str
    """Of its operations, for the log."""
    tokens: Sequence[str]


def draft(order: Order, limits: Limits, store: str) -> Draft:
    """The order as JSON.

    `ValueError` for a value that is no JSON; `LimitExceededError`, which names the `store`.
    """
    if len(order.operations) > limits.operations:
        raise LimitExceededError(store, "operations", limits.operations, len(order.operations))
    # In characters, of which each is at most 4 bytes: what is below needs no closer look.
    key, value = limits.key // 4, limits.value // 4
    last: dict[Key, Written] = {}
    total = 0
    has_revoked = False
    for each in order.operations:
        if isinstance(each, Revoke):
            has_revoked = True
            continue
        name = (each.topic, each.key, each.namespace)
        if len(name[0]) > key or len(name[1]) > key or len(name[2]) > key:
            _check(store, "key", limits.key, max(map(_size, name)))
        text = ""
        if isinstance(each, Put):
            text = encode_value(each)
            if len(text) > value:
                _check(store, "value", limits.value, _size(text))
        item = encode_change(each, text)
        total += len(item) if item.isascii() else len(item.encode())
        if total > limits.commit:
            raise LimitExceededError(store, "commit", limits.commit, total)
        last.pop(name, None)  # the last one keeps its own place
        last[name] = Written(each, name, text, item)
    names = list(last)
    if order.expect:
        names += [name for name in order.expect if name not in last]
    tokens = revoked_tokens(order.operations) if has_revoked else ()
    return Draft(order, list(last.values()), tokens, names)


def settle(
    draft: Draft, present: Mapping[Key, Present | None], epoch: str, limits: Limits, store: str
) -> Effects | None:
    """What becomes of it; None if it is not to be made, because it would change nothing.

    `present` has whatever is there of `Draft.names`.
    `ConflictError`; `LimitExceededError` if what it replaces is too much for the log.
    """
    order = draft.order
    if order.expect:
        _check_expected(order, present, epoch)
    changes: list[Written] = []
    items: list[str] = []
    total = 0
    for each in draft.changes:
        change, name, _, item = each
        was = present.get(name)
        if was is None:
            if not isinstance(change, Put):
                continue
        else:
            if isinstance(change, Put) and _is_unchanged(order, each, was):
                continue
            if was.value:
                item = with_previous(item, was.value)
        changes.append(each)
        items.append(item)
        total += len(item)
    most = _LONGEST_LOG_TEXT * limits.commit
    if total > most // 4:
        _check(store, "commit", most, sum(map(_size, items)))
    if order.if_changed and not changes and not draft.tokens:
        return None
    return Effects(changes, f"[{','.join(items)}]", draft.tokens)


def _is_unchanged(order: Order, put: Written, was: Present) -> bool:
    """Whether it is left out; `ConflictError` if nobody may put it."""
    is_final = isinstance(put.change, Put) and put.change.final
    if order.if_changed and was.final == is_final and is_same_json(was.value, put.value):
        return True
    if was.final:
        name = Name(*put.name)
        raise ConflictError(name, int(order.expect.get(name, was.since)), was.since, is_final=True)
    return False


def _check(store: str, what: str, limit: int, actual: int) -> None:
    if actual > limit:
        raise LimitExceededError(store, what, limit, actual)


def _check_expected(order: Order, present: Mapping[Key, Present | None], epoch: str) -> None:
    for name, expected in order.expect.items():
        was = present.get(name)
        actual = 0 if was is None else was.since
        read_in = expected.epoch if isinstance(expected, EpochIndex) else order.epoch or epoch
        if actual != expected or (expected and read_in != epoch):
            raise ConflictError(name, int(expected), actual)


def _size(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())
