"""The table against a dict."""

import sys
import tracemalloc
from collections.abc import Mapping
from typing import Any

from hypothesis import given, settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from trio_stream.view import GONE, Gone, Table

KEYS = st.one_of(st.integers(0, 3), st.integers(0, 40))
VALUES: st.SearchStrategy[int | Gone | None] = st.one_of(st.integers(), st.none(), st.just(GONE))
CHANGES = st.dictionaries(KEYS, VALUES, max_size=30)


def change(model: Mapping[int, Any], changes: Mapping[int, Any]) -> dict[int, Any]:
    return {key: value for key, value in {**model, **changes}.items() if value is not GONE}


class Tables(RuleBasedStateMachine):
    """Any table may be changed, also one that was changed before; none of them ever changes itself."""

    def __init__(self) -> None:
        super().__init__()
        self.tables: list[tuple[Table[int, Any], dict[int, Any]]] = [(Table(), {})]

    @initialize(content=CHANGES)
    def of(self, content: dict[int, Any]) -> None:
        self.tables.append((Table.of(dict(content)), change({}, content)))

    @rule(changes=CHANGES)
    def newest(self, changes: dict[int, Any]) -> None:
        self.derive(len(self.tables) - 1, changes)

    @rule(at=st.integers(0, 1000), changes=CHANGES)
    def any(self, at: int, changes: dict[int, Any]) -> None:
        self.derive(at % len(self.tables), changes)

    def derive(self, at: int, changes: dict[int, Any]) -> None:
        parent, model = self.tables[at]
        table = parent.changed(changes)
        assert set(table.changed_since(parent) or ()) == set(changes)
        for other, _ in self.tables:
            assert other is parent or table.changed_since(other) is None
        self.tables.append((table, change(model, changes)))

    @invariant()
    def the_same(self) -> None:
        for table, model in self.tables[-4:]:
            assert dict(table) == model
            assert len(table) == len(model) == len(list(table))
            assert [table.get(key, "no") for key in range(41)] == [model.get(key, "no") for key in range(41)]


TestTables = Tables.TestCase
TestTables.settings = settings(max_examples=60, stateful_step_count=20)


def test_what_it_is_made_of_shows_in_its_repr() -> None:
    assert repr(Table[str, int].of({"a": 1})) == "Table({'a': 1})"


def test_a_table_that_is_changed_key_by_key_copies_little() -> None:
    """By its memory: to keep a hundred of them costs less than two."""
    table = Table[int, int].of(dict.fromkeys(range(50_000), 0)).changed({-1: 0})
    tables = []
    tracemalloc.start()
    for number in range(100):
        table = table.changed({number: number})
        tables.append(table)
    size = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert len(set(map(len, tables))) == 1
    assert size < sys.getsizeof(dict.fromkeys(range(50_000)))


def test_a_table_of_which_the_last_key_is_deleted_is_empty() -> None:
    table = Table[str, int].of({"a": 1}).changed({"a": GONE})
    assert (dict(table), len(table)) == ({}, 0)


def test_changing_nothing_costs_nothing() -> None:
    table = Table[str, int].of({"a": 1})
    tracemalloc.start()
    for _ in range(1000):
        table = table.changed({})
    size = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert table == {"a": 1}
    assert size < 4000


def test_a_table_does_not_see_what_happens_to_the_dict_of_its_changes() -> None:
    changes: dict[str, int | Gone] = {"a": 1}
    table = Table[str, int]().changed(changes)
    changes["a"] = 2
    assert table["a"] == 1


def test_no_change_of_a_large_table_copies_much_of_it() -> None:
    """D15: by its memory, until each key has changed."""
    keys = range(100_000)
    table = Table[int, int].of(dict.fromkeys(keys, 0))
    tracemalloc.start()
    most = 0
    for begin in range(0, len(keys), 500):
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        table = table.changed({key * 7919 % len(keys): begin for key in range(begin, begin + 500)})
        most = max(most, tracemalloc.get_traced_memory()[1] - before)
    tracemalloc.stop()
    assert len(table) == len(keys)
    assert most < sys.getsizeof(dict.fromkeys(keys)) / 3


def test_a_change_by_which_all_parts_of_a_large_table_are_due_copies_some_of_them() -> None:
    """D15."""
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    table = Table[int, int].of(dict.fromkeys(range(400_000), 0))
    size = tracemalloc.get_traced_memory()[0] - before
    table = table.changed(dict.fromkeys(range(88_400), 1))
    before = tracemalloc.get_traced_memory()[0]
    tracemalloc.reset_peak()
    table = table.changed(dict.fromkeys(range(100_000, 123_800), 2))
    most = tracemalloc.get_traced_memory()[1] - before
    tracemalloc.stop()
    assert size / 4 < most < size * 3 / 4
    assert [table[key] for key in (88_399, 88_400, 123_799, 123_800)] == [1, 0, 2, 0]


def test_keys_that_come_and_go_leave_nothing() -> None:
    """D11: what was deleted is forgotten in time, in a small table and in a large one."""
    for size in (0, 20_000):
        table = Table[int, int].of(dict.fromkeys(range(-size, 0), 0))
        tracemalloc.start()
        sizes = []
        for begin in range(0, 200_000, 500):
            table = table.changed(dict.fromkeys(range(begin, begin + 500), 0))
            table = table.changed(dict.fromkeys(range(begin, begin + 500), GONE))
            sizes.append(tracemalloc.get_traced_memory()[0])
        tracemalloc.stop()
        assert len(table) == size
        assert max(sizes[200:]) < max(sizes[:200]) * 1.5


@given(st.dictionaries(st.integers(0, 30_000), st.just(1), max_size=20), st.integers(8_000, 20_000))
@settings(max_examples=20)
def test_a_table_that_has_grown_to_many_parts_is_the_same_mapping(changes: dict[int, int], size: int) -> None:
    model: dict[int, int] = dict.fromkeys(range(size), 0)
    table = Table[int, int].of(model)
    small = Table[int, int]()
    for begin in range(0, size, 1000):
        small = small.changed({key: 0 for key in model if begin <= key < begin + 1000})
    assert table == small == model
    gone = dict.fromkeys(list(model)[::7], GONE)
    for each in (table, small):
        assert dict(each.changed(changes).changed(gone)) == change(change(model, changes), gone)


def test_a_key_that_comes_back_after_its_deletion_counts_again() -> None:
    """Whether the deletion has been merged into what lies below it or not."""
    table = Table[int, int].of(dict.fromkeys(range(100), 0))
    for key in (5, 6, 5):
        without = table.changed({key: GONE})
        assert (len(without), len(without.changed({200: 1}))) == (99, 100)
        assert len(without.changed({200: 1}).changed({key: 1})) == 101
        table = without.changed({key: 1})
        assert (len(table), len(list(table))) == (100, 100)
