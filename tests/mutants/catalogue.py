"""All mutants, and whether they fit the package as it is."""

from pathlib import Path

from mutants.asking import ASKING
from mutants.durable import DURABLE
from mutants.ends import ENDS
from mutants.keeping import KEEPING
from mutants.mutant import Mutant
from mutants.reading import READING
from mutants.rights import RIGHTS
from mutants.slow import SLOW
from mutants.views import VIEWS

MUTANTS = (*READING, *ASKING, *RIGHTS, *SLOW, *KEEPING, *VIEWS, *DURABLE, *ENDS)
CHECKOUT = Path(__file__).parents[2]


def problem(mutant: Mutant) -> str | None:
    """Why it cannot be applied; None if it can."""
    count = (CHECKOUT / "trio_stream" / mutant.file).read_text().count(mutant.old)
    return None if count == 1 else f"does not apply: {count} times in {mutant.file}"
