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


Outcome: TypeAlias = EpochIndex | Exception
"""The index of a commit, or why it was not made. A `BusyError` says that it was not begun, and may be asked again."""


class Written(NamedTuple):
    """A change as it is written."""

    change: Change
    name: Name
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
    names: Sequence[Name]
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

    def check(what: str, limit: int, actual: int) -> None:
        if actual > limit:
            raise LimitExceededError(store, what, limit, actual)

    check("operations", limits.operations, len(order.operations))
    changes: list[Written] = []
    total = 0
    for each in order.operations:
        if isinstance(each, Revoke):
            continue
        name = each.name
        if len(each.topic) + len(each.key) + len(each.namespace) > limits.key // 4:
            check("key", limits.key, max(map(_size, name)))
        value = ""
        if isinstance(each, Put):
            value = encode_value(each)
            check("value", limits.value, _size(value))
        item = encode_change(each, value)
        total += _size(item)
        check("commit", limits.commit, total)
        changes.append(Written(each, name, value, item))
    last = {each.name: each for each in changes}
    if len(last) < len(changes):
        changes = [each for each in changes if last[each.name] is each]
    names = list(last)
    if order.expect:
        names += [name for name in order.expect if name not in last]
    return Draft(order, changes, revoked_tokens(order.operations), names)


def settle(
    draft: Draft, present: Mapping[Name, Present], epoch: str, limits: Limits, store: str
) -> Effects | None:
    """What becomes of it; None if it is not to be made, because it would change nothing.

    `present` has whatever is there of `Draft.names`.
    `ConflictError`; `LimitExceededError` if what it replaces is too much for the log.
    """
    order = draft.order
    _check_expected(order, present, epoch)
    changes: list[Written] = []
    items: list[str] = []
    total = 0
    for each in draft.changes:
        was = present.get(each.name)
        if was is None:
            if isinstance(each.change, Put):
                changes.append(each)
                items.append(each.item)
            continue
        if isinstance(each.change, Put):
            if order.if_changed and was.final == each.change.final and is_same_json(was.value, each.value):
                continue
            if was.final:
                expected = int(order.expect.get(each.name, was.since))
                raise ConflictError(each.name, expected, was.since, is_final=True)
        changes.append(each)
        items.append(with_previous(each.item, was.value) if was.value else each.item)
        total += _size(items[-1])
    most = _LONGEST_LOG_TEXT * limits.commit
    if total > most:
        raise LimitExceededError(store, "commit", most, total)
    if order.if_changed and not changes and not draft.tokens:
        return None
    return Effects(changes, f"[{','.join(items)}]", draft.tokens)


def _check_expected(order: Order, present: Mapping[Name, Present], epoch: str) -> None:
    for name, expected in order.expect.items():
        was = present.get(name)
        actual = 0 if was is None else was.since
        read_in = expected.epoch if isinstance(expected, EpochIndex) else order.epoch or epoch
        if actual != expected or (expected and read_in != epoch):
            raise ConflictError(name, int(expected), actual)


def _size(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())
