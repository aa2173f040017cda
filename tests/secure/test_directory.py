from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmchain_fl.core.secure.directory import Directory, Entry, read_directory
from llmchain_fl.core.secure.identity import Identity

ENTRY = Entry("ed25519:", b"", b"", "")


def made(count: int, told: str = "d", all_pairs: int = 3, neighbours: int = 4) -> Directory:
    return Directory({f"s{number}": ENTRY for number in range(count)}, told, all_pairs, neighbours)


def parts(directory: Directory, left: set[str]) -> int:
    """Into how many pieces the graph on ``left`` falls."""
    pieces, open_names = 0, set(left)
    while open_names:
        pieces, border = pieces + 1, [open_names.pop()]
        while border:
            near = set(directory.neighbours(border.pop())) & open_names
            open_names -= near
            border.extend(near)
    return pieces


graphs = st.tuples(st.integers(3, 60), st.sampled_from([2, 4, 6, 10]), st.text("0123456789abcdef", max_size=8))


@given(graphs)
def test_whoever_holds_my_shares_gives_me_its_own(graph: tuple[int, int, str]) -> None:
    count, neighbours, told = graph
    directory = made(count, told, neighbours=neighbours)
    for name in directory.names:
        assert name in directory.holders(name)
        assert name not in directory.neighbours(name)
        assert all(name in directory.neighbours(other) for other in directory.neighbours(name))
        expected = neighbours if count > max(3, neighbours + 1) else count - 1
        assert len(directory.neighbours(name)) == len(set(directory.neighbours(name))) == expected


@given(graphs, st.randoms(use_true_random=False))
def test_the_graph_holds_together_while_fewer_go_than_a_member_has_neighbours(
    graph: tuple[int, int, str], draw: random.Random
) -> None:
    count, neighbours, told = graph
    directory = made(count, told, neighbours=neighbours)
    most = len(directory.neighbours(directory.names[0])) - 1
    for _ in range(5):
        assert parts(directory, set(directory.names) - set(draw.sample(directory.names, most))) == 1


def test_the_graph_can_fall_apart_when_as_many_go_as_a_member_has_neighbours() -> None:
    directory = made(20)
    for name in directory.names:
        assert parts(directory, set(directory.names) - set(directory.neighbours(name))) == 2


def test_another_directory_is_another_ring() -> None:
    rings = {tuple(tuple(made(40, told).holders(name)) for name in made(40).names) for told in "abcdef"}
    assert len(rings) == 6


@pytest.mark.parametrize(("count", "sparse"), [(50, False), (51, True), (21, False)])
def test_all_are_neighbours_up_to_a_number_of_members(count: int, sparse: bool) -> None:
    directory = made(count, all_pairs=50, neighbours=20)
    assert directory.sparse is sparse
    assert all(len(directory.neighbours(name)) == (20 if sparse else count - 1) for name in directory.names)


def test_no_graph_is_sparse_where_the_neighbours_are_all_others() -> None:
    assert not made(5, all_pairs=3, neighbours=4).sparse
    assert made(6, all_pairs=3, neighbours=4).sparse


def test_points_are_different_and_never_zero() -> None:
    directory = made(30)
    assert sorted(map(directory.point, directory.names)) == list(range(1, 31))


def test_the_same_keys_in_another_order_are_the_same_directory_and_others_are_not() -> None:
    people = {name: Identity(name.encode() * 32) for name in "abcd"}
    listed = {name: identity.public for name, identity in people.items()}

    def key(name: str, mask: str) -> bytes:
        told = {"run": "r", "round": 1, "site": name, "identity": listed[name]}
        return people[name].signed("key", {**told, "mask": mask * 32, "box": "22" * 32, "self": "33" * 32})

    keys = [key(name, "11") for name in "abcd"]
    one, turned, server = (
        read_directory(some, ("r", 1), trusted, 2, 2)
        for some, trusted in ((keys, listed), (keys[::-1], listed), (keys, None))
    )
    assert one.digest == turned.digest == server.digest
    assert one.names == turned.names == list("abcd")
    assert [one.holders(name) for name in "abcd"] == [turned.holders(name) for name in "abcd"]
    others = [keys[:3], [*keys[:3], key("d", "44")]]
    assert one.digest not in {read_directory(some, ("r", 1), listed, 2, 2).digest for some in others}
