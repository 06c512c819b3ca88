"""Names and values that are awkward for one engine or another, and how to make more of them by chance."""

import random
from collections.abc import Sequence
from typing import Final

from trio_stream.stores import JSON, MAX_DEPTH

KEYS: Final = (
    "a", "A", "b", "B", "aa", "aA", "Aa", "AA", "Z", "z", "_", "-", "0", "00", "1", "10", "2", "01", "1.0",
    "1e3", "a/b", "a%b", "a_b", "a.b", "a*b", "a?b", "a[b", "a]b", "[a]", "a\\b", "a\\%b", "axb", "%", "%%",
    "a%", "_a", "a b", " a", "a ", "  ", "\t", "a\nb", "a\r\nb", "\x01", "\x7f", "../a", "/", "//", "a//b",
    "C:\\a", ".", "..", "a'b", "''", "'", 'a"b', '"', "`", "a;b", "--", "a -- b", "$1", "$$", ":a", "@a", "?",
    "%s", "{}", "{0}", "\\", "\\\\", "\\n", "\\u0041", "&", "<b>", "#", "a,b", "a\x01b", "null", "NULL", "true",
    "None", "NaN", "ä", "a\u0308", "Ä", "é", "e\u0301", "ß", "ss", "SS", "\u0131", "i", "I", "İ", "ﬁ", "fi",
    "\u00c5", "\u212b", "A\u030a", "\u03a9", "\u2126", "µ", "μ", "ключ", "鍵", "\uff46", "\u200b", "\u200ba",
    "\ufeffa", "\u2028", "\u00a0", "\u00ad", "\ud7ff", "\ue000", "\ufffd", "\uffff", "\U00010000", "😀", "😁",
    "👩\u200d🚀", "a😀", "a\uffff", "\U0010ffff", "\U0010ffff\U0010ffff", "a\U0010ffff", "\u0080", "\u07ff",
    "\u0800",
)  # fmt: skip
"""No two of them are the same, whatever they look like."""


def deep(levels: int, of: JSON = 0) -> JSON:
    """Lists and objects, one in the other."""
    value = of
    for level in range(levels):
        value = [value] if level % 2 else {"a": value}
    return value


VALUES: Final[Sequence[JSON]] = (
    None, True, False, 0, 1, -1, 2, 10, 2**31 - 1, 2**31, -(2**31) - 1, 2**53, 2**53 + 1, -(2**53) - 1,
    2**63 - 1, 2**63, 2**64, 2**64 + 1, -(2**63), -(2**63) - 1, 10**30, 10**100, 0.0, -0.0, 1.0, -1.0, 1.5, 0.1,
    0.1 + 0.2, 1 / 3, 100.0, 1e15, 1e16, 1e22, 1e23, -1e300, 1.7976931348623157e308, 5e-324,
    2.2250738585072014e-308, 123456789.123456789, float(2**53), float(2**64), "", " ", "text", "0", "1", "1.0",
    "true", "null", "None", "[]", "{}", '"', "\\", "\\u0041", "'", "\0", "a\0b", "\x01\x1f\x7f", "\t \n \r\n",
    "\u2028\u2029", "ü", "u\u0308", "ключ", "😀", "\ud7ff\ue000\uffff\U0010ffff", "\ufeff", "</script>",
    "2026-11-28T00:00:00Z", " padded ", "%s $1 :a ?", [], {}, [[]], [{}], {"a": {}}, {"a": []}, [None],
    [None, None], [0, False, 0.0, "", None], [True, 1, 1.0, "1"], [None, [1, {"a": []}]], {"": 1},
    {"": {"": ""}}, {"a": None}, {"A": 1, "a": 2}, {"b": 1, "a": 2}, {"ä": 1, "a\u0308": 2},
    {"ключ": {"x": [1.25, "y"]}, "a.b/c": None}, {"__proto__": 1, "$ref": "#", "key": "value"},
    {"0": 0, "1": [1.0, 2**64]}, {"a\0b": 1, "\u2028": 2, "😀": 3, '"': 4, "\\": 5}, [*range(300)],
    {f"{n}": n for n in range(300)}, deep(20), deep(MAX_DEPTH), [deep(MAX_DEPTH - 1, "leaf"), 1],
    [1, [2, [3, [4, [5, [6]]]]]], "x" * 100_000,
)  # fmt: skip
"""Each is JSON, and all of them differ."""


def some_value(random: random.Random, depth: int = 2) -> JSON:
    """Any JSON, mostly small."""
    match random.randrange(8 if depth else 5):
        case 0:
            return random.choice((None, True, False, 0, 1, 0.0, 1.0, "", "0", "1", 2**64))
        case 1:
            return random.randrange(-3, 4)
        case 2:
            return random.choice(VALUES[:60])
        case 3:
            return random.choice(KEYS) * random.randrange(3)
        case 4:
            return round(random.uniform(-2, 2), random.randrange(17))
        case 5 | 6:
            return [some_value(random, depth - 1) for _ in range(random.randrange(4))]
        case _:
            return {random.choice(KEYS): some_value(random, depth - 1) for _ in range(random.randrange(4))}


def some_key(random: random.Random) -> str:
    """Any key; some of them often."""
    if random.random() < 0.5:
        return random.choice("abcAB")
    return "".join(random.choices(KEYS, k=random.choice((1, 1, 1, 2, 3))))
