"""Refuses arguments that make no sense, at the call."""


def check_upto(upto: int | None) -> None:
    """Raises unless this is an index or None."""
    if upto is None:
        return
    if isinstance(upto, bool) or not isinstance(upto, int):
        raise TypeError(f"upto is an integer or None, not {upto!r}")
    if upto < 0:
        raise ValueError(f"upto is not negative: {upto}")
