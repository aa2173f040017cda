from __future__ import annotations

import itertools

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from llmchain_fl.core.errors import SecureSumError
from llmchain_fl.core.secure.identity import Identity
from llmchain_fl.core.secure.policy import Policy, Terms
from llmchain_fl.core.secure.survivors import needs_quorum


@pytest.mark.parametrize(
    ("members", "holders", "colluders", "expected"),
    [
        (3, 3, 0, (2, 2, 3)),
        (3, 3, 1, (3, 3, 3)),
        (10, 10, 0, (6, 6, 6)),
        (10, 10, 3, (7, 7, 7)),
        (100, 21, 0, (11, 51, 81)),
        (100, 21, 19, (21, 60, 100)),
    ],
)
def test_each_row_of_the_table_of_terms(
    members: int, holders: int, colluders: int, expected: tuple[int, int, int]
) -> None:
    assert Policy({}, colluders=colluders).terms(members, holders) == Terms(*expected)


@pytest.mark.parametrize(
    ("members", "holders", "colluders", "word"),
    [(3, 3, 2, "threshold"), (100, 21, 20, "threshold"), (2, 2, 0, "few-peers")],
)
def test_each_refusal_of_the_table_of_terms(members: int, holders: int, colluders: int, word: str) -> None:
    with pytest.raises(SecureSumError, match=f"^{word}:"):
        Policy({}, colluders=colluders).terms(members, holders)


@pytest.mark.parametrize("holders", range(2, 8))
@pytest.mark.parametrize("colluders", range(4))
def test_no_way_to_ask_the_holders_opens_both_secrets_of_one_member(holders: int, colluders: int) -> None:
    try:
        threshold = Policy({}, min_peers=2, colluders=colluders).terms(holders, holders).threshold
    except SecureSumError:
        return
    honest = holders - colluders
    opened = set()
    for told in itertools.product(("self", "mask", "nothing"), repeat=honest):
        counts = tuple(told.count(kind) + colluders for kind in ("self", "mask"))
        opened.add(tuple(count >= threshold for count in counts))
    assert (True, True) not in opened
    assert (True, False) in opened  # and one of them can be had, or no sum would ever be opened


@given(st.integers(2, 200), st.integers(1, 20), st.integers(0, 60))
def test_two_lists_never_both_find_a_quorum(members: int, half: int, colluders: int) -> None:
    holders = min(members, 2 * half + 1)
    try:
        terms = Policy({}, min_peers=2, colluders=colluders).terms(members, holders)
    except SecureSumError:
        return
    assert 2 * (terms.quorum - colluders) > members - colluders
    gone = members - terms.floor
    assert gone + colluders < max(holders - 1, 2)
    assert terms.floor - colluders >= 2


@given(st.integers(3, 60), st.integers(0, 10), st.integers(0, 60), st.integers(3, 60))
def test_the_floor_is_never_below_what_the_policy_asks_for(
    members: int, colluders: int, survivors: int, peers: int
) -> None:
    assume(members >= max(peers, survivors))
    policy = Policy({}, min_peers=peers, colluders=colluders, survivors=survivors)
    try:
        terms = policy.terms(members, members)
    except SecureSumError:
        assert colluders > members - 2
        return
    assert terms.floor >= max(peers, survivors, terms.threshold)


def test_a_round_of_more_members_than_the_policy_allows_is_refused() -> None:
    policy = Policy({}, most_members=4)
    policy.terms(4, 4)
    with pytest.raises(SecureSumError, match="few-peers"):
        policy.terms(5, 5)


@pytest.mark.parametrize(
    "wrong", [{"min_peers": -1}, {"colluders": -1}, {"survivors": -1}, {"neighbours": 3}, {"neighbours": 0}], ids=str
)
def test_a_policy_that_is_none_is_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(SecureSumError, match="threshold"):
        Policy({}, **wrong)


def test_a_policy_lists_identities_and_nothing_else() -> None:
    Policy({"a": Identity(bytes(32)).public})
    with pytest.raises(SecureSumError, match="form"):
        Policy({"a": "somebody"})


@pytest.mark.parametrize(
    ("members", "shared", "survivors", "floor", "sparse", "expected"),
    [
        (100, 100, 100, 81, True, True),
        (10, 10, 10, 6, False, False),
        (10, 7, 7, 6, False, False),  # who gave no shares is masked by nobody
        (10, 10, 8, 6, False, False),
        (10, 10, 7, 6, False, True),
        (10, 8, 7, 6, False, True),
        (5, 5, 4, 3, False, False),
        (5, 5, 3, 3, False, True),
        (3, 3, 2, 2, False, False),
        (4, 4, 3, 3, False, False),
    ],
)
def test_each_row_of_the_table_of_confirmations(
    members: int, shared: int, survivors: int, floor: int, sparse: bool, expected: bool
) -> None:
    assert needs_quorum(members, shared, survivors, floor, sparse) is expected


@given(st.integers(2, 12), st.integers(0, 3), st.integers(0, 12))
def test_unconfirmed_lists_never_open_more_keys_than_members_may_be_gone(
    members: int, colluders: int, gone: int
) -> None:
    try:
        terms = Policy({}, min_peers=2, colluders=colluders).terms(members, members)
    except SecureSumError:
        return
    assume(members - gone >= terms.floor)
    if not needs_quorum(members, members, members - gone, terms.floor, False):
        shares_given = (members - colluders) * gone
        assert shares_given // (terms.threshold - colluders) <= members - terms.floor
