"""Partitions: laws over the whole table, then what each way is for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmchain_fl.core.errors import ConfigError, DataError
from simulations.partition import PARTITIONERS, Indices, partition

WAYS = sorted(PARTITIONERS)
BY_GROUP = ("column", "natural")
ROWS = [way for way in WAYS if way not in BY_GROUP]


@st.composite
def requests(draw: st.DrawFn) -> tuple[list[str], list[str], int, int, float, int]:
    """labels, groups, sites, seed, alpha, min_per_site: every site can be filled, and every site is one group."""
    sites = draw(st.integers(1, 6))
    least = draw(st.integers(0, 3))
    groups = [f"g{site}" for site in range(sites) for _ in range(max(1, least))]
    groups += draw(st.lists(st.sampled_from(groups), max_size=40))
    labels = draw(st.lists(st.sampled_from("abcde"), min_size=len(groups), max_size=len(groups)))
    alpha = draw(st.sampled_from([1e-9, 1e-3, 0.1, 1.0, 100.0, 1e9]))
    return labels, draw(st.permutations(groups)), sites, draw(st.integers(0, 2**32)), alpha, least


def contents(parts: Sequence[Indices], values: Sequence[str]) -> list[Counter[str]]:
    return [Counter(values[index] for index in part) for part in parts]


@pytest.mark.parametrize("way", WAYS)
@given(request=requests())
def test_every_row_is_at_exactly_one_site_and_no_site_is_short(
    way: str, request: tuple[list[str], list[str], int, int, float, int]
) -> None:
    parts = PARTITIONERS[way](*request)
    labels, _, sites, _, _, least = request
    assert len(parts) == sites
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(labels)))
    for part in parts:
        assert part.dtype == np.int64
        assert (np.diff(part) > 0).all()
        assert len(part) >= max(1, least)


@pytest.mark.parametrize("way", WAYS)
@given(request=requests())
def test_the_same_arguments_give_the_same_sites(
    way: str, request: tuple[list[str], list[str], int, int, float, int]
) -> None:
    first = PARTITIONERS[way](*request)
    np.random.seed(1)  # the global generator must not matter
    again = PARTITIONERS[way](*request)
    assert [part.tolist() for part in first] == [part.tolist() for part in again]


@pytest.mark.parametrize("way", WAYS)
@given(request=requests())
def test_one_site_has_everything(way: str, request: tuple[list[str], list[str], int, int, float, int]) -> None:
    labels, _, _, seed, alpha, _ = request
    parts = PARTITIONERS[way](labels, ["g"] * len(labels), 1, seed, alpha, 1)
    assert parts[0].tolist() == list(range(len(labels)))


@pytest.mark.parametrize("way", ROWS)
@given(request=requests(), shuffle=st.randoms(use_true_random=False))
def test_the_order_of_the_rows_does_not_change_how_many_a_site_has(way: str, request: tuple, shuffle: object) -> None:  # type: ignore[type-arg]
    labels, *rest = request
    order = list(range(len(labels)))
    shuffle.shuffle(order)  # type: ignore[attr-defined]
    moved = PARTITIONERS[way]([labels[index] for index in order], *rest)
    assert [len(part) for part in moved] == [len(part) for part in PARTITIONERS[way](labels, *rest)]


@pytest.mark.parametrize("way", BY_GROUP)
@given(request=requests(), shuffle=st.randoms(use_true_random=False), seed=st.integers(0, 99))
def test_groups_go_where_their_names_say_whatever_the_seed_and_the_order(
    way: str,
    request: tuple,
    shuffle: object,
    seed: int,  # type: ignore[type-arg]
) -> None:
    labels, groups, sites, _, alpha, least = request
    parts = PARTITIONERS[way](labels, groups, sites, 0, alpha, least)
    order = list(range(len(labels)))
    shuffle.shuffle(order)  # type: ignore[attr-defined]
    moved = PARTITIONERS[way](
        [labels[index] for index in order], [groups[index] for index in order], sites, seed, alpha, least
    )
    assert [sorted(order[index] for index in part) for part in moved] == [part.tolist() for part in parts]


@given(request=requests())
def test_dirichlet_moves_with_the_rows(request: tuple) -> None:  # type: ignore[type-arg]
    labels, *rest = request
    forward = contents(PARTITIONERS["dirichlet-equal"](labels, *rest), labels)
    assert contents(PARTITIONERS["dirichlet-equal"](labels[::-1], *rest), labels[::-1]) == forward


@pytest.mark.parametrize("way", ROWS)
def test_another_seed_gives_other_sites(way: str) -> None:
    labels = list("ab" * 50)
    dealt = {str([p.tolist() for p in partition(way, labels, sites=4, seed=seed)]) for seed in range(5)}
    assert len(dealt) == 5


@pytest.mark.parametrize("way", ["iid", "dirichlet-equal", "shards"])
def test_sizes_are_even(way: str) -> None:
    sizes = [len(part) for part in partition(way, list("aaab") * 25 + ["c"] * 3, sites=5, seed=3, alpha=0.1)]
    assert max(sizes) - min(sizes) <= (1 if way != "shards" else 2)


def test_a_short_site_takes_rows_from_the_largest() -> None:
    parts = partition("dirichlet", ["a"] * 100, sites=10, seed=0, alpha=1e-6, min_per_site=4)
    assert sorted(len(part) for part in parts) == [4] * 9 + [64]


def test_shards_give_a_site_few_labels() -> None:
    labels = [label for label in "abcdefghij" for _ in range(20)]
    counts = contents(partition("shards", labels, sites=10, seed=1), labels)
    assert all(len(count) <= 2 and count.total() == 20 for count in counts)


def test_as_many_groups_as_sites_is_one_group_per_site_in_the_order_of_names() -> None:
    groups = ["south", "north", "south", "east", "south"]
    for way, sites in (("column", 3), ("natural", 3), ("natural", 0)):
        parts = partition(way, ["a"] * 5, groups, sites=sites, seed=0)
        assert [part.tolist() for part in parts] == [[3], [1], [0, 2, 4]]


def test_more_groups_than_sites_are_packed_evenly_and_stay_whole() -> None:
    groups = [name for name, size in zip("abcdef", (7, 5, 4, 3, 2, 1), strict=True) for _ in range(size)]
    counts = contents(partition("column", ["x"] * 22, groups, sites=2, seed=0), groups)
    assert [count.total() for count in counts] == [11, 11]
    assert not set(counts[0]) & set(counts[1])


@given(sizes=st.lists(st.integers(1, 30), min_size=1, max_size=12), sites=st.integers(1, 6))
def test_packing_keeps_grahams_bound(sizes: list[int], sites: int) -> None:
    """The largest site exceeds the smallest by no more than the largest group (each group went to the smallest)."""
    sites = min(sites, len(sizes))
    groups = [f"g{number}" for number, size in enumerate(sizes) for _ in range(size)]
    loads = [len(part) for part in partition("column", ["x"] * len(groups), groups, sites=sites, seed=0)]
    assert max(loads) - min(loads) <= max(sizes)


CANARY = "zebra-4711"


@pytest.mark.parametrize(
    ("way", "rows", "groups", "options", "message"),
    [
        ("column", 3, None, {"sites": 2}, "needs a column of groups"),
        ("natural", 3, None, {"sites": 0}, "needs a column of groups"),
        ("column", 3, [CANARY] * 3, {"sites": 2}, "1 groups for 2 sites"),
        ("natural", 3, [CANARY, "b", "b"], {"sites": 3}, "has 2 groups and the run asks for 3 sites"),
        ("column", 3, [CANARY, "b"], {"sites": 2}, "2 groups for 3 records"),
        ("column", 3, [CANARY, " ", ""], {"sites": 2}, r"2 records have no group \(first: record 2\)"),
        ("natural", 4, [CANARY, "b", "b", "b"], {"sites": 2, "min_per_site": 2}, "site 1 of 2 .* gets 1 records"),
        ("natural", 0, [], {"sites": 0}, "no record to deal out"),
        ("column", 0, [], {"sites": 1}, "no record to deal out"),
        *[(way, 3, None, {"sites": 4}, "3 records cannot give 4 sites 1 each") for way in ROWS],
        *[(way, 7, None, {"sites": 4, "min_per_site": 2}, "7 records cannot give 4 sites 2 each") for way in ROWS],
    ],
)
def test_sites_that_cannot_be_filled_are_refused(
    way: str, rows: int, groups: list[str] | None, options: dict[str, int], message: str
) -> None:
    with pytest.raises(DataError, match=message) as caught:
        partition(
            way, [CANARY] * rows, groups, seed=0, sites=options["sites"], min_per_site=options.get("min_per_site", 1)
        )
    assert CANARY not in str(caught.value)
    assert "->" in str(caught.value)


@pytest.mark.parametrize("way", WAYS)
def test_all_faults_of_the_numbers_are_named_at_once(way: str) -> None:
    sites = 1 if way == "natural" else -1
    with pytest.raises(ConfigError) as caught:
        partition(way, ["a"], ["g"], sites=sites, seed=0, alpha=float("nan"), min_per_site=-2)
    assert len(caught.value.faults) == (2 if way == "natural" else 3)


@pytest.mark.parametrize("alpha", [0.0, -1.0, 1e-10, float("inf"), 2e9])
def test_an_alpha_out_of_bounds_is_refused(alpha: float) -> None:
    with pytest.raises(ConfigError, match=r"alpha is .*; it must be from 1e-09 to 1e\+09"):
        partition("dirichlet-equal", ["a"], sites=1, seed=0, alpha=alpha)


def test_an_unknown_way_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="partition is 'diri'; it must be one of iid, dirichlet"):
        partition("diri", ["a"], sites=1, seed=0)
