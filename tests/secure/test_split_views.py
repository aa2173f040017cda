"""A server that tells different members different things: what it would open without a check, and that it does not."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping

import numpy as np
import pytest

from llmchain_fl.core.errors import SecureSumError
from llmchain_fl.core.secure import member as member_module
from llmchain_fl.core.secure.exchange import mask_key, mask_sign
from llmchain_fl.core.secure.identity import digest, read, read_identity
from llmchain_fl.core.secure.shamir import SHARE, combined
from llmchain_fl.core.secure.stream import add_stream
from llmchain_fl.core.secure.survivors import endorsed
from llmchain_fl.core.secure.words import low_bits, signed, unpacked, wrapped
from llmchain_fl.privacy.drill import secure_sum as drill
from llmchain_fl.privacy.drill.secure_sum import BITS, RUN, Club

NAMES = A, B, C, D, E = [f"site-{number:02}" for number in range(5)]
NUMBERS = drill.some_numbers(NAMES)
Sets = Mapping[str, list[str]]


def weaken(monkeypatch: pytest.MonkeyPatch, *kinds: str) -> None:
    """Members that take messages of these kinds as said by everybody."""

    def blind(messages, kind, expected, listed):  # type: ignore[no-untyped-def]
        return set(listed) if kind in kinds else endorsed(messages, kind, expected, listed)

    monkeypatch.setattr(member_module, "endorsed", blind)


def uploads(club: Club, shared: Sets) -> dict[str, bytes]:
    """Each member is told another set of those who gave shares."""
    drill.give_keys(club)
    drill.give_shares(club, NAMES)
    server, found = club.server, {}
    server.shared()
    for name, member in club.members.items():
        near = [share for share in server.shares_for(name) if json.loads(share)["body"]["site"] in shared[name]]
        words = wrapped(NUMBERS[name], BITS)
        found[name] = member.masked(RUN, 1, server.directory(), shared[name], near, words, BITS)
    return found


def answers(club: Club, shared: Sets, lists: Sets, sent: Mapping[str, bytes]) -> dict[str, dict[int, int]]:
    """Owner and kind -> point -> share: what the members give away when each is told another list.

    Whoever is in a list confirms it, though an honest member would not: the strongest claim that a server could make.
    """
    found: dict[str, dict[int, int]] = {}
    directory, listed = club.server.members, [sent[name].partition(b"\n")[0] for name in NAMES]
    for name, alive in lists.items():
        place = {"run": RUN, "round": 1, "directory": directory.digest, "shared": digest(sorted(shared[name]))}
        own = read_identity(club.home / name / "identity.key")
        told = [own.signed("survivors", {**place, "site": name, "survivors": digest(sorted(alive))})]
        answer = read(club.members[name].unmask(RUN, 1, alive, listed, told), "answer").text("shares")
        for number, owner in enumerate(sorted(shared[name])):
            share = int(answer[2 * SHARE * number :][: 2 * SHARE], 16)
            found.setdefault(f"{owner} {owner in alive}", {})[directory.point(name)] = share
    return found


def sum_of(
    club: Club, shared: Sets, sent: Mapping[str, bytes], given: Mapping[str, dict[int, int]], part: Iterable[str]
):  # type: ignore[no-untyped-def]
    """The sum over ``part``, as a server opens it that has the secrets for it."""
    directory, total = club.server.members, np.zeros(16, dtype=np.uint32)
    for name in part:
        total += unpacked(sent[name].partition(b"\n")[2], 16, BITS)
        add_stream(total, combined(given[f"{name} True"]), -1)
        for other in set(shared[name]) - set(part):
            secret = combined(given[f"{other} False"])
            key = mask_key(secret, directory.entries[name].mask, directory.digest, name, other)
            add_stream(total, key, -mask_sign(name, other))
    return signed(total & low_bits(BITS), BITS)


ALL: Sets = {name: list(NAMES) for name in NAMES}
TWO: Sets = {A: [A, B, C], B: [A, B, D], C: [A, B, C], D: [A, B, D], E: [A, B, E]}
"""Lists of three each, by which everybody but A and B is called gone three times."""
FEW: Sets = {**ALL, A: [A, B, C]}
ONE: Sets = {B: [A, B, D], C: [A, C, D], D: [A, D, E], E: [A, D, E]}
"""A masks against B and C only, and these are called gone three times each."""


def test_without_confirmations_different_lists_would_open_a_sum_of_two(make_club, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    weaken(monkeypatch, "survivors")
    club = make_club(5, min_peers=3)
    sent = uploads(club, ALL)
    given = answers(club, ALL, TWO, sent)
    assert np.array_equal(sum_of(club, ALL, sent, given, [A, B]), NUMBERS[A] + NUMBERS[B])


def test_different_lists_open_nothing(make_club) -> None:  # type: ignore[no-untyped-def]
    club = make_club(5, min_peers=3)
    sent = uploads(club, ALL)
    with pytest.raises(SecureSumError, match=r"^confirmations"):
        answers(club, ALL, TWO, sent)


def test_without_both_checks_different_sets_would_open_one_members_numbers(make_club, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    weaken(monkeypatch, "upload", "survivors")
    club = make_club(5, min_peers=3)
    sent = uploads(club, FEW)
    given = answers(club, FEW, ONE, sent)
    assert np.array_equal(sum_of(club, FEW, sent, given, [A]), NUMBERS[A])


@pytest.mark.parametrize(("blind", "word"), [("survivors", "one-shared-set"), ("upload", "confirmations")])
def test_either_check_keeps_different_sets_from_opening_anything(make_club, monkeypatch, blind: str, word: str) -> None:  # type: ignore[no-untyped-def]
    weaken(monkeypatch, blind)
    club = make_club(5, min_peers=3)
    sent = uploads(club, FEW)
    for name, alive in ONE.items():
        with pytest.raises(SecureSumError, match=rf"^{word}"):
            answers(club, FEW, {name: alive}, sent)


def test_in_a_sparse_graph_a_list_is_confirmed_even_where_nobody_is_gone(make_club) -> None:  # type: ignore[no-untyped-def]
    club = make_club(8, all_pairs=3, neighbours=4)
    names = sorted(club.members)
    drill.give_keys(club)
    drill.give_shares(club, names)
    drill.upload(club, names, drill.some_numbers(names))
    assert club.server.confirms
    drill.unmask(club, names)
    assert club.refused == {"confirmations": 8}
