"""The page of evidence, from figures made up here: the whole programme is for `nox -s proof`."""

import json

import report

NOTED = [
    ("model", "states checked, one after each rule", 5_000),
    ("orders of small scripts", "publish, receive: manual", 7),
    ("orders of small scripts", "publish, receive: trio", 4),
    ("orders of small scripts", "publish, receive: asyncio", 4),
    ("orders of longer scripts", "lag: manual", [30, False]),
    ("orders of longer scripts", "lag: trio", [14, True]),
    ("orders of longer scripts", "lag: asyncio", [14, True]),
    ("lives", "trio", 20),
    ("life events", "trio", 600),
    ("lives", "uvloop", 20),
    ("life events", "uvloop", 500),
    ("swept", "open_view: by scope", 3),
    ("swept", "open_view: natively", 2),
    ("swept", "open_view: by scope", 4),
    ("cancelled", "by scope", 9),
    ("mutant", "no floor", {"killer": "t.py::test[a|b] hangs", "origin": "D2", "file": "_cursor.py"}),
    ("proposed", "proposed", 4_000),
    ("proposed", "tried", 580),
    ("proposed", "noticed", 580),
    ("judged", "It is only slower.", 20),
    ("bytes", "idle subscription", 318.0),
    ("bytes", "idle subscription", 318.4),
    ("fault", "the disk is full: a StoreError", 3),
    ("resumed", "beside kills", 1_700),
    ("fuzz", "a commit is whole or refused", 300),
]


def test_every_figure_that_was_noted_is_on_the_page() -> None:
    figures = report.Figures(
        json.dumps({"kind": kind, "what": what, "value": value}) for kind, what, value in NOTED
    )
    page = "\n".join(
        report.page(figures, [report.Run("python tests/mutants", 61.2, has_passed=True, noted=[])], 9.4)
    )
    for line in [
        "| states compared with the model | 5,000 |",
        "| distinct orders of tasks | 93 |",
        "| calls cancelled at one of their suspensions | 18 |",
        "| mutants killed | 1 of 1 |",
        "| `python tests/mutants` | 61 |",
        "| publish, receive | 7 | 4 | 4 |",
        "| lag | some: 30 | all: 14 | all: 14 |",
        "| uvloop | 20 | 500 |",
        "| `open_view` | 7 | 2 |",
        r"| no floor | D2 | `_cursor.py` | `t.py::test[a\|b]`, which hangs |",
        "| proposed mutants noticed | 580 of 580 |",
        "| It is only slower. | 20 |",
        "| idle subscription | 318.4 |",
        "| the disk is full | 3 | a StoreError |",
        "left and went on at their cursor 1,700 times",
        "| a commit is whole or refused | 300 |",
    ]:
        assert line in page
