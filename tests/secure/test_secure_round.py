"""The server: carries, finds faults and whose they are, opens the sum, and survives its own death."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from llmchain_fl.core.errors import SecureSumError
from llmchain_fl.core.secure.identity import Identity, digest, read_identity
from llmchain_fl.core.secure.shamir import PRIME, SHARE
from llmchain_fl.core.secure.words import wrapped
from llmchain_fl.privacy.drill import secure_sum as drill
from llmchain_fl.privacy.drill.secure_sum import BITS, RUN, Club
from llmchain_fl.secure_sum import NotOpened, Opened, SecureRound

NAMES = [f"site-{number:02}" for number in range(5)]
A, B, C, D, E = NAMES
NUMBERS = drill.some_numbers(NAMES)
EVIL = Identity(b"\x07" * 32)


def resigned(club: Club, message: bytes, **values: object) -> bytes:
    told = json.loads(message)
    signer = read_identity(club.home / told["body"]["site"] / "identity.key")
    return signer.signed(told["kind"], {**told["body"], **values})


def played(club: Club, *, upload: list[str] = NAMES, answer: list[str] = NAMES) -> Opened | NotOpened:
    drill.give_keys(club)
    drill.give_shares(club, NAMES)
    drill.upload(club, upload, NUMBERS)
    drill.confirm(club, answer)
    drill.unmask(club, answer)
    return club.server.opened()


def exact(opened: Opened | NotOpened, *sites: str) -> bool:
    return (
        isinstance(opened, Opened)
        and opened.sites == sites
        and bool((opened.total == sum(NUMBERS[site] for site in sites)).all())
    )


def heard(club: Club, name: str) -> bytes:
    """What the server has of an answer, by ``kind/site``."""
    return club.server.state()[1][name]


def lying(club: Club, name: str, owner: str, by: int = 1) -> bytes:
    """The answer of ``name`` with another share of ``owner``."""
    answer = heard(club, f"answer/{name}")
    digits, at = json.loads(answer)["body"]["shares"], 2 * SHARE * NAMES.index(owner)
    share = (int(digits[at : at + 2 * SHARE], 16) + by) % PRIME
    return resigned(club, answer, shares=digits[:at] + share.to_bytes(SHARE, "big").hex() + digits[at + 2 * SHARE :])


def replaced(club: Club, *answers: tuple[str, bytes]) -> None:
    closed, told = club.server.state()
    club.server.load_state(closed, told | {f"answer/{name}": data for name, data in answers})


def test_the_sum_is_exact_and_signed(make_club) -> None:  # type: ignore[no-untyped-def]
    opened = played(make_club(5))
    assert exact(opened, *NAMES)
    assert isinstance(opened, Opened)
    assert opened.total.dtype == np.int64
    assert (opened.total < 0).any()
    assert opened.liars == ()


@pytest.mark.parametrize("steps", range(1, 6))
def test_a_server_that_dies_after_any_step_goes_on_where_it_was(make_club, steps: int) -> None:  # type: ignore[no-untyped-def]
    club = make_club(5, min_peers=3)
    script: list[Callable[[], None]] = [
        lambda: drill.give_keys(club),
        lambda: drill.give_shares(club, NAMES),
        lambda: drill.upload(club, [A, B, D], NUMBERS),
        lambda: drill.confirm(club, [A, B, D]),
        lambda: drill.unmask(club, [A, B, D]),
    ]
    for number, step in enumerate(script, start=1):
        step()
        if number == steps:
            told, blobs = club.server.state()
            told = json.loads(json.dumps(told))
            club.server = drill.new_server(club.policy)
            club.server.load_state(told, blobs)
    assert exact(club.server.opened(), A, B, D)


def test_the_same_answer_again_is_free_and_another_one_is_refused(make_club) -> None:  # type: ignore[no-untyped-def]
    club = make_club(5)
    drill.give_keys(club)
    key = heard(club, f"key/{A}")
    club.server.hear("key", A, key)
    with pytest.raises(SecureSumError, match=r"^twice"):
        club.server.hear("key", A, resigned(club, key, mask=json.loads(heard(club, f"key/{B}"))["body"]["mask"]))
    club.server.directory()
    club.server.hear("key", A, key)
    with pytest.raises(SecureSumError, match=r"^round"):
        club.server.hear("key", "late", EVIL.signed("key", {**json.loads(key)["body"], "site": "late"}))


KEY: list[tuple[str, dict[str, object]]] = [
    ("round", {"round": 2}),
    ("round", {"run": "another"}),
    ("form", {"mask": "00" * 32}),
    ("form", {"box": "zz" * 32}),
    ("signature", {"identity": EVIL.public}),
]


@pytest.mark.parametrize(("word", "values"), KEY, ids=str)
def test_a_key_that_others_would_refuse_is_refused_at_once(make_club, word: str, values: dict[str, object]) -> None:  # type: ignore[no-untyped-def]
    club = make_club(3)
    key = club.members[A].key(RUN, 1)
    with pytest.raises(SecureSumError, match=rf"^{word}"):
        club.server.hear("key", A, resigned(club, key, **values))
    with pytest.raises(SecureSumError, match=r"^round"):
        club.server.hear("key", B, key)
    club.server.hear("key", A, key)


SHARES: list[tuple[str, dict[str, object]]] = [
    ("form", {"to": "nobody"}),
    ("form", {"context": "another plan"}),
    ("form", {"directory": "00"}),
    ("form", {"sealed": "00"}),
    ("share", {"threshold": 0}),
    ("share", {"threshold": 5}),
    ("share", {"quorum": 9}),
    ("share", {"floor": 4}),
]


@pytest.mark.parametrize(("word", "values"), SHARES, ids=str)
def test_shares_that_others_would_refuse_keep_their_owner_out_of_the_round(  # type: ignore[no-untyped-def]
    make_club, word: str, values: dict[str, object]
) -> None:
    club = make_club(4)
    drill.give_keys(club)
    names = NAMES[:4]
    first, *rest = club.members[A].shares(RUN, 1, club.server.directory(), drill.PLAN).split(b"\n")
    with pytest.raises(SecureSumError, match=rf"^{word}"):
        club.server.hear("share", A, b"\n".join([resigned(club, first, **values), *rest]))
    with pytest.raises(SecureSumError, match=r"^share"):
        club.server.hear("share", A, b"\n".join(rest))
    with pytest.raises(SecureSumError, match=r"^stranger"):
        club.server.hear("share", "nobody", first)
    drill.give_shares(club, names[1:])
    drill.upload(club, names, NUMBERS)
    drill.unmask(club, names)
    assert exact(club.server.opened(), B, C, D)


def test_an_upload_that_is_no_such_vector_is_refused(make_club) -> None:  # type: ignore[no-untyped-def]
    club = make_club(5)
    drill.give_keys(club)
    drill.give_shares(club, NAMES)
    server, member = club.server, club.members[A]
    asked = (RUN, 1, server.directory(), server.shared(), server.shares_for(A))
    upload = member.masked(*asked, wrapped(NUMBERS[A], BITS), BITS)
    statement, _, words = upload.partition(b"\n")
    for data in (statement, statement + b"\n" + words[:-1], upload + b"\x00"):
        with pytest.raises(SecureSumError, match=r"^form"):
            server.hear("upload", A, data)
    with pytest.raises(SecureSumError, match=r"^signature"):
        server.hear("upload", A, EVIL.signed("upload", json.loads(statement)["body"]) + b"\n" + words)
    with pytest.raises(SecureSumError, match=r"^form"):
        server.hear("upload", A, resigned(club, statement, shared=digest(NAMES[:4])) + b"\n" + words)
    server.hear("upload", A, upload)


@pytest.mark.parametrize(
    ("word", "values"),
    [("form", {"survivors": "00"}), ("form", {"shares": "00"}), ("form", {"shares": "zz" * 330})],
    ids=str,
)
def test_an_answer_that_is_none_is_refused(make_club, word: str, values: dict[str, object]) -> None:  # type: ignore[no-untyped-def]
    club = make_club(5)
    played(club, answer=NAMES[1:])
    answer = club.members[A].unmask(RUN, 1, NAMES, club.server.statements_for(A))
    with pytest.raises(SecureSumError, match=rf"^{word}"):
        club.server.hear("answer", A, resigned(club, answer, **values))
    with pytest.raises(SecureSumError, match=r"^stranger"):
        club.server.hear("answer", "nobody", answer)
    club.server.hear("answer", A, answer)


def test_too_few_answers_open_nothing_and_one_more_does(make_club) -> None:  # type: ignore[no-untyped-def]
    club = make_club(5)
    few = played(club, answer=[A, C])
    assert few == NotOpened("few", tuple(NAMES))
    drill.unmask(club, [D])
    assert exact(club.server.opened(), *NAMES)


def test_nobodys_sum_is_none(make_club) -> None:  # type: ignore[no-untyped-def]
    assert played(make_club(5), upload=[]) == NotOpened("few", tuple(NAMES))


@pytest.mark.parametrize("gone", [[], [E]], ids=["of a self seed", "of a mask key"])
def test_a_wrong_share_is_made_good_and_its_giver_named(make_club, gone: list[str]) -> None:  # type: ignore[no-untyped-def]
    club, stay = make_club(5), [name for name in NAMES if name not in gone]
    played(club, upload=stay, answer=stay)
    replaced(club, (B, lying(club, B, E)))
    opened = club.server.opened()
    assert exact(opened, *stay)
    assert isinstance(opened, Opened)
    assert opened.liars == (B,)


def test_two_wrong_shares_of_five_are_made_good(make_club) -> None:  # type: ignore[no-untyped-def]
    club = make_club(5)
    played(club)
    replaced(club, (A, lying(club, A, D)), (C, lying(club, C, D, by=7)))
    opened = club.server.opened()
    assert isinstance(opened, Opened)
    assert opened.liars == (A, C)


def test_wrong_shares_that_no_try_sorts_out_open_nothing(make_club, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr("llmchain_fl.secure_opening.TRIES", 0)
    club = make_club(5)
    played(club)
    replaced(club, (B, lying(club, B, E)))
    assert club.server.opened() == NotOpened("misfit", tuple(NAMES))


def test_a_wrong_share_without_a_spare_one_names_all_whom_it_may_have_been(make_club) -> None:  # type: ignore[no-untyped-def]
    club = make_club(5)
    played(club, answer=[A, B, C])
    replaced(club, (B, lying(club, B, E)))
    assert club.server.opened() == NotOpened("misfit", (A, B, C, E))


@pytest.mark.parametrize("gone", [[], [E]], ids=["self seed", "mask key"])
def test_an_owner_that_dealt_another_secret_is_named(make_club, gone: list[str]) -> None:  # type: ignore[no-untyped-def]
    club, stay = make_club(5), [name for name in NAMES if name not in gone]
    played(club, upload=stay, answer=stay)
    replaced(club, *((name, lying(club, name, E, by=5)) for name in stay))  # all shares moved: another secret
    assert club.server.opened() == NotOpened("owner", (E,))


def test_a_share_outside_the_field_is_a_wrong_share(make_club) -> None:  # type: ignore[no-untyped-def]
    club = make_club(5)
    played(club)
    answer = heard(club, f"answer/{A}")
    replaced(club, (A, resigned(club, answer, shares="ff" * SHARE * 5)))
    opened = club.server.opened()
    assert exact(opened, *NAMES)
    assert isinstance(opened, Opened)
    assert opened.liars == (A,)


def test_each_site_has_its_own_threshold(make_club) -> None:  # type: ignore[no-untyped-def]
    club = make_club(5)
    club.members[B] = drill.open_member(club.home / B, B, replace(club.policy, colluders=2))
    assert played(club, answer=[A, C, D]) == NotOpened("few", (B,))
    assert (club.server.quorum, club.server.floor) == (4, 4)
    drill.unmask(club, [E])
    assert exact(club.server.opened(), *NAMES)


def test_what_one_site_asks_for_is_kept_by_those_who_hold_its_shares(make_club) -> None:  # type: ignore[no-untyped-def]
    club = make_club(5)
    club.members[B] = drill.open_member(club.home / B, B, replace(club.policy, survivors=5))
    assert isinstance(played(club, upload=NAMES[:4], answer=NAMES[:4]), NotOpened)
    assert club.refused == {"few-survivors": 8}  # who confirm, and unmask


def test_in_a_sparse_graph_everything_goes_between_neighbours_only(make_club) -> None:  # type: ignore[no-untyped-def]
    club = make_club(12, all_pairs=5, neighbours=6)
    names = sorted(club.members)
    numbers = drill.some_numbers(names)
    drill.give_keys(club)
    drill.give_shares(club, names[1:])
    drill.upload(club, names[3:], numbers)
    drill.confirm(club, names[3:])
    drill.unmask(club, names[3:])  # four holders of seven at least, whatever the ring
    opened = club.server.opened()
    assert isinstance(opened, Opened)
    assert opened.sites == tuple(names[3:])
    assert (opened.total == sum(numbers[name] for name in names[3:])).all()
    members = club.server.members
    for name in names[1:]:
        assert heard(club, f"share/{name}").count(b"\n") == 5
        near = set(members.neighbours(name)) & set(names[1:])
        assert {json.loads(share)["body"]["site"] for share in club.server.shares_for(name)} == near


@pytest.mark.parametrize(("size", "bits"), [(1, 18), (0, 18), (33, 1), (7, 32), (100, 31)])
def test_vectors_of_any_length_and_width_are_summed(make_club, size: int, bits: int) -> None:  # type: ignore[no-untyped-def]
    club, names = make_club(3), NAMES[:3]
    server = club.server = SecureRound(RUN, 1, drill.PLAN, size, bits)
    draw = np.random.default_rng(bits)
    most = 2 ** (bits - 1) // 3
    numbers = {name: draw.integers(-most, most + 1, size) for name in names}
    drill.give_keys(club)
    drill.give_shares(club, names)
    for name in names:
        asked = (RUN, 1, server.directory(), server.shared(), server.shares_for(name))
        server.hear("upload", name, club.members[name].masked(*asked, wrapped(numbers[name], bits), bits))
    drill.unmask(club, names)
    opened = server.opened()
    assert isinstance(opened, Opened)
    assert (opened.total == sum(numbers.values())).all()


def test_no_upload_looks_like_its_numbers(make_club) -> None:  # type: ignore[no-untyped-def]
    club = make_club(3, size=4000)
    zeros = {name: np.zeros(4000, dtype=np.int64) for name in NAMES}
    drill.give_keys(club)
    drill.give_shares(club, NAMES[:3])
    drill.upload(club, NAMES[:3], zeros)
    for name in NAMES[:3]:
        words = np.frombuffer(heard(club, f"upload/{name}").partition(b"\n")[2], dtype=np.uint8)
        counts = np.bincount(words, minlength=256)
        assert counts.min() > 10  # 39 expected, 6 the deviation
        assert counts.max() < 80
    drill.unmask(club, NAMES[:3])
    opened = club.server.opened()
    assert isinstance(opened, Opened)
    assert not opened.total.any()
