"""What a `Retention` may be made of."""

from datetime import timedelta

import pytest

from trio_stream.stores import Retention


def test_an_age_is_a_timedelta_or_seconds() -> None:
    assert Retention(age=timedelta(minutes=1)).seconds == Retention(age=60).seconds == 60.0
    assert Retention().seconds == float("inf")


@pytest.mark.parametrize("commits", [True, 1.0, "1"])
def test_a_number_of_commits_is_a_whole_one(commits: int) -> None:
    with pytest.raises(TypeError, match="commits are a number"):
        Retention(commits=commits)


@pytest.mark.parametrize("age", [True, "1", [1]])
def test_an_age_of_another_kind_is_refused(age: float) -> None:
    with pytest.raises(TypeError, match="an age is"):
        Retention(age=age)


def test_what_is_negative_or_no_number_is_refused() -> None:
    with pytest.raises(ValueError, match="from 0"):
        Retention(commits=-1)
    for age in (-1, -0.5, float("nan"), timedelta(seconds=-1)):
        with pytest.raises(ValueError, match="not negative"):
            Retention(age=age)
