"""D1-D18: what would break a promise is noticed; a sample by default, all of them in `nox -s proof`."""

import subprocess
import sys
from pathlib import Path

import pytest
from mutants.catalogue import CHECKOUT, MUTANTS, problem
from mutants.mutant import Mutant


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_mutant_still_applies(mutant: Mutant) -> None:
    """A change of the package has to take the mutants along."""
    assert problem(mutant) is None


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
