"""D1-D24: what would break a promise is noticed; a sample by default, all of them in `nox -s proof`."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from mutants import __main__ as runner
from mutants.catalogue import CHECKOUT, MUTANTS, problem
from mutants.mutant import Mutant
from mutants.shipped import NOT_EXPRESSED, SHIPPED

TESTS = Path(__file__).parents[1]


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_mutant_still_applies(mutant: Mutant) -> None:
    """A change of the package has to take the mutants along."""
    assert problem(mutant) is None


def test_no_two_mutants_are_the_same() -> None:
    assert len({(mutant.file, mutant.old, mutant.new) for mutant in MUTANTS}) == len(MUTANTS)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_mutant_says_which_promise_it_breaks_or_who_has_shipped_it(mutant: Mutant) -> None:
    assert re.search(r"\bD\d+\b", mutant.origin) or any(bug in mutant.origin for bug in SHIPPED)


@pytest.mark.parametrize("bug", SHIPPED)
def test_every_bug_that_others_have_shipped_has_a_mutant_or_a_reason(bug: str) -> None:
    assert any(bug in mutant.origin for mutant in MUTANTS) != (bug in NOT_EXPRESSED)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_the_tests_that_should_notice_a_mutant_are_there(mutant: Mutant) -> None:
    assert mutant.killers
    for killer in mutant.killers:
        assert (TESTS / killer).exists()


@pytest.mark.slow
def test_a_sample_of_the_mutants_is_killed() -> None:
    """That the others are killed too is for `python tests/mutants` to say."""
    done = subprocess.run(
        [sys.executable, str(Path(__file__).parent), "--quick"],
        cwd=CHECKOUT,
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


def test_who_has_noticed_counts_as_long_as_nothing_has_changed_of_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tests = tmp_path / "tests"
    tests.mkdir()
    (tests / "test_a.py").write_text("1")
    (tests / "scenes.py").write_text("1")
    monkeypatch.setattr(runner, "TESTS", tests)
    file = tmp_path / "kept" / "killed.jsonl"
    one, other = MUTANTS[:2]
    runner.Kept(file).add(one, {"name": one.name, "killer": "test_a.py::test_b[c] hangs"})
    runner.Kept(file).add(other, {"name": other.name, "killer": None})
    known = runner.Kept(file)
    assert known.get(one) == {"name": one.name, "killer": "test_a.py::test_b[c] hangs"}
    assert known.get(other) is None
    assert known.get(one._replace(new="another")) is None
    (tests / "test_c.py").write_text("another test")
    assert runner.Kept(file).get(one) is not None
    (tests / "test_a.py").write_text("2")
    assert runner.Kept(file).get(one) is None
    (tests / "test_a.py").write_text("1")
    (tests / "scenes.py").write_text("2")
    assert runner.Kept(file).get(one) is None
    monkeypatch.setattr(runner, "digest", lambda: "another library")
    (tests / "scenes.py").write_text("1")
    assert runner.Kept(file).get(one) is None
