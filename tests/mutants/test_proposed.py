"""The changes that are proposed, and what is known to be no fault: that no test notices it is for a run to say."""

from pathlib import Path

import pytest
from mutants.catalogue import CHECKOUT
from mutants.proposed.judged import JUDGED, read

SOURCE = '''
def later(a: int, b: int = 1) -> bool:
    """Whether it is later."""
    assert a, "a"
    if a < 0 or b < 0:
        raise ValueError(f"negative: {a - b}")
    count = a - b
    return count > 0
'''


def proposed(source: str) -> list[tuple[str, str]]:
    changes = pytest.importorskip("mutants.proposed.changes", reason="mutmut is not installed")
    return [(change.old, change.new) for change in changes.propose("_later.py", source)]


def test_each_line_that_decides_something_is_changed_in_several_ways() -> None:
    changes = proposed(SOURCE)
    for change in [
        ("if a < 0 or b < 0:", "if a < 0 and b < 0:"),
        ("if a < 0 or b < 0:", "if (a < 0):"),
        ("if a < 0 or b < 0:", "if (a < 0 or b < 0) and False:"),
        ("if a < 0 or b < 0:", "if a <= 0 or b < 0:"),
        ("count = a - b", "count = a + b"),
        ("count = a - b", "pass"),
        ("return count > 0", "return count != 0"),
        ("return count > 0", "return count > 1"),
    ]:
        assert change in changes
    assert len(set(changes)) == len(changes)


def test_words_annotations_and_assertions_are_left_alone() -> None:
    for old, _ in proposed(SOURCE):
        assert "assert" not in old
        assert "negative" not in old or old.startswith("raise")
    assert not proposed('"""A module."""\n\nx: int\ny: Final = 4\nT = TypeVar("T", bound=int)\n')


def test_what_is_judged_is_read_with_its_reason() -> None:
    lines = ["# It is", "# slower.", "a.py: f", "- x = 1", "+ x = 2", "+ x = 0", "", "# Other.", "- y", "+ z"]
    assert dict(read(iter(lines))) == {
        "a.py: f\n- x = 1\n+ x = 2": "It is slower.",
        "a.py: f\n- x = 1\n+ x = 0": "It is slower.",
        "a.py: f\n- y\n+ z": "Other.",
    }


@pytest.mark.parametrize("name", JUDGED)
def test_what_is_judged_is_still_there(name: str) -> None:
    """A change of the package has to take the judgements along."""
    place, old, _ = name.split("\n")
    source = (CHECKOUT / "trio_stream" / Path(place.partition(":")[0])).read_text()
    assert JUDGED[name]
    assert old.removeprefix("- ") in " ".join(line.strip() for line in source.splitlines())
