"""Who is asked in a round, and with what weight."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from server.cohort import choose, weights

SITES = [f"site-{i:02d}" for i in range(10)]


@given(st.permutations(SITES), st.integers(0, 12), st.integers(0, 99), st.integers(1, 50))
def test_a_cohort_is_a_function_of_names_seed_and_round_alone(
    order: list[str], size: int, seed: int, number: int
) -> None:
    chosen = choose(order, size, seed, number)
    assert chosen == choose(SITES, size, seed, number)
    assert len(set(chosen)) == len(chosen) == (10 if size in (0, 10, 11, 12) else size)


def test_every_site_is_asked_sooner_or_later_and_about_equally_often() -> None:
    counts = dict.fromkeys(SITES, 0)
    for number in range(2000):
        for site in choose(SITES, 3, 1, number):
            counts[site] += 1
    assert all(500 < count < 700 for count in counts.values())


def test_weights_are_uniform_unless_the_run_names_them_in_the_order_of_the_names() -> None:
    assert weights(["b", "a"], []) == {"a": 1.0, "b": 1.0}
    assert weights(["b", "a"], [3.0, 1.0]) == {"a": 3.0, "b": 1.0}
