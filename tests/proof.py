"""How much of the programme is run: a little by default, all of it with TRIO_STREAM_PROOF=1."""

import os

IS_PROOF = os.environ.get("TRIO_STREAM_PROOF", "") not in ("", "0")


def amount(default: int, proof: int) -> int:
    """The first number by default, the second for the whole programme."""
    return proof if IS_PROOF else default
