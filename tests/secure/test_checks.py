"""Each check of ``checks.py`` refuses, again from disk, and leaves the round as it was: the honest rest adds up."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

import pytest

from llmchain_fl.core.errors import CODES, SecureSumError
from llmchain_fl.core.secure import checks
from llmchain_fl.core.secure.exchange import PAIR, seal, secrets_of
from llmchain_fl.core.secure.identity import Identity, digest, read_identity
from llmchain_fl.core.secure.member import Member
from llmchain_fl.core.secure.words import wrapped
from llmchain_fl.privacy.drill import secure_sum as drill
from llmchain_fl.privacy.drill.secure_sum import BITS, PLAN, RUN, Club
from llmchain_fl.secure_sum import Opened

ME, *OTHERS = NAMES = [f"site-{number:02}" for number in range(5)]
THREE, FOUR, PEER, LAST = NAMES[:3], NAMES[:4], OTHERS[0], OTHERS[-1]
NUMBERS = drill.some_numbers(NAMES)
EVIL = Identity(b"\x07" * 32)
Attack = Callable[[Club], object]
CASES: list[tuple[str, str, Attack]] = []


def refused(word: str, stage: str) -> Callable[[Attack], Attack]:
    """An attack that must be refused by the check ``word``, in a round that has come to ``stage``."""

    def noted(attack: Attack) -> Attack:
        CASES.append((stage, word, attack))
        return attack

    return noted


def identity(club: Club, name: str) -> Identity:
    return read_identity(club.home / name / "identity.key")


def resigned(club: Club, message: bytes, **values: object) -> bytes:
    """A message with other values, signed by its own sender, who colludes."""
    told = json.loads(message)
    return identity(club, told["body"]["site"]).signed(told["kind"], {**told["body"], **values})


def evil(message: bytes, **values: object) -> bytes:
    """A message with other values, signed by nobody that is listed."""
    told = json.loads(message)
    return EVIL.signed(told["kind"], {**told["body"], **values})


def unsigned(message: bytes, **values: object) -> bytes:
    """A message with other values and the signature of the old ones."""
    told = json.loads(message)
    told["body"] |= values
    return json.dumps(told, sort_keys=True, separators=(",", ":")).encode()


def me(club: Club) -> Member:
    return club.members[ME]


def keys(club: Club) -> list[bytes]:
    return club.server.directory()


def key_of_peer(club: Club) -> bytes:
    return keys(club)[NAMES.index(PEER)]


def with_key(club: Club, message: bytes, name: str = PEER) -> bytes:
    directory = keys(club)
    directory[NAMES.index(name)] = message
    return shares(club, directory)


def shares(club: Club, directory: list[bytes], context: str = PLAN) -> bytes:
    return me(club).shares(RUN, 1, directory, context)


def masked(club: Club, **changes: object) -> bytes:
    """An upload; :meth:`Member.check` must have refused before whatever is refused then, but for the words."""
    server, member = club.server, me(club)
    asked = {"directory": keys(club), "shared": server.shared(), "shares": server.shares_for(ME), **changes}
    vector = {name: asked.pop(name, usual) for name, usual in (("words", wrapped(NUMBERS[ME], BITS)), ("bits", BITS))}
    try:
        member.check(RUN, 1, **asked)  # type: ignore[arg-type]
    except SecureSumError as early:
        with pytest.raises(SecureSumError, match=rf"^{early.check}: "):
            member.masked(RUN, 1, **asked, **vector)  # type: ignore[arg-type]
        raise
    try:
        return member.masked(RUN, 1, **asked, **vector)  # type: ignore[arg-type]
    except SecureSumError as late:
        if late.check != "words":
            pytest.fail(f"only masked() noticed: {late}")
        raise


def share_of_peer(club: Club, to: str = ME) -> bytes:
    return next(share for share in club.server.shares_for(to) if json.loads(share)["body"]["site"] == PEER)


def with_share(club: Club, *instead: bytes) -> bytes:
    others = [share for share in club.server.shares_for(ME) if share != share_of_peer(club)]
    return masked(club, shares=[*others, *instead])


def sealed_again(club: Club, **values: int) -> bytes:
    """The share of the peer, sealed and signed by itself under other terms."""
    told = json.loads(share_of_peer(club))["body"]
    header = {name: value for name, value in told.items() if name != "sealed"} | values
    with club.members[PEER]._store.opened(RUN) as file:
        box = secrets_of(bytes.fromhex(file.rounds[1].seed)).box
    sealed = seal(box, club.server.members.entries[ME].box, header, bytes(PAIR))
    return resigned(club, share_of_peer(club), **values, sealed=sealed.hex())


@pytest.mark.parametrize("term", ["threshold", "quorum", "floor"])
@pytest.mark.parametrize("asked", [-1, 0, 6, 10**30])
def test_a_share_under_terms_that_nobody_can_meet_is_refused(make_club, term: str, asked: int) -> None:  # type: ignore[no-untyped-def]
    club = at(make_club(5, min_peers=3), "shares")
    for message in (sealed_again(club, **{term: 5}), share_of_peer(club)):
        others = [share for share in club.server.shares_for(ME) if share != share_of_peer(club)]
        me(club).check(RUN, 1, keys(club), club.server.shared(), [*others, message])
    with pytest.raises(SecureSumError, match=r"^share: .* asks for more members"):
        with_share(club, sealed_again(club, **{term: asked}))
    ended(club)


def place(club: Club) -> dict[str, object]:
    return {"run": RUN, "round": 1, "directory": club.server.members.digest, "shared": digest(club.server.shared())}


def statements(club: Club, **values: object) -> list[bytes]:
    """What the others say whom they are masked against; ``values``: what the last of them says instead."""
    told = [{**place(club), "site": name} for name in OTHERS]
    told[-1] |= values
    return [identity(club, name).signed("upload", body) for name, body in zip(OTHERS, told, strict=True)]


def confirmations(club: Club, survivors: list[str], by: list[str]) -> list[bytes]:
    """What ``by`` would sign, whether or not they were asked: a server with that many colluders."""
    told = {**place(club), "survivors": digest(sorted(survivors))}
    return [identity(club, name).signed("survivors", {**told, "site": name}) for name in by]


def confirm(club: Club, survivors: list[str]) -> bytes:
    return me(club).confirm(RUN, 1, survivors, statements(club))


def unmask(club: Club, survivors: list[str], confirmed: list[bytes] | None = None) -> bytes:
    told = confirmations(club, survivors, NAMES) if confirmed is None else confirmed
    return me(club).unmask(RUN, 1, survivors, statements(club), told)


def under(club: Club, **policy: int) -> bytes:
    club.members[ME] = drill.open_member(club.home / ME, ME, replace(club.policy, **policy))
    return shares(club, keys(club))


@refused("signature", "keys")
def a_key_of_the_servers_own(club: Club) -> None:
    with_key(club, unsigned(key_of_peer(club), mask="09" * 32))


@refused("signature", "keys")
def a_key_under_another_identity(club: Club) -> None:
    with_key(club, evil(key_of_peer(club), identity=EVIL.public))


@refused("signature", "keys")
def a_key_that_another_identity_signed(club: Club) -> None:
    with_key(club, evil(key_of_peer(club)))


@refused("stranger", "keys")
def a_stranger_in_the_directory(club: Club) -> None:
    with_key(club, evil(key_of_peer(club), site="stranger", identity=EVIL.public))


@refused("twice", "keys")
def a_site_in_the_directory_twice(club: Club) -> None:
    with_key(club, resigned(club, keys(club)[2], mask="09" * 32))


@refused("twice", "keys")
def more_keys_than_sites(club: Club) -> None:
    shares(club, [*keys(club), key_of_peer(club)])


@refused("round", "keys")
def a_key_of_another_round(club: Club) -> None:
    with_key(club, club.members[PEER].key(RUN, 2))


@refused("round", "keys")
def a_key_of_another_run(club: Club) -> None:
    with_key(club, club.members[PEER].key("another", 1))


@refused("own-key", "keys")
def a_directory_without_me(club: Club) -> None:
    shares(club, keys(club)[1:])


@refused("own-key", "keys")
def a_directory_with_another_key_of_mine(club: Club) -> None:
    with_key(club, resigned(club, keys(club)[0], box="09" * 32), ME)


@refused("few-peers", "keys")
def a_directory_of_two(club: Club) -> None:
    shares(club, keys(club)[:2])


@refused("few-peers", "keys")
def fewer_members_than_the_policy_asks_for(club: Club) -> None:
    under(club, min_peers=6)


@refused("few-peers", "keys")
def fewer_members_than_must_survive(club: Club) -> None:
    under(club, survivors=6)


@refused("few-peers", "keys")
def more_members_than_the_policy_allows(club: Club) -> None:
    under(club, most_members=4)


@refused("threshold", "keys")
def more_colluders_than_the_members_can_stand(club: Club) -> None:
    under(club, colluders=4)


@refused("form", "keys")
def a_key_that_is_none(club: Club) -> None:
    with_key(club, resigned(club, key_of_peer(club), mask="09" * 31))


@refused("form", "keys")
def a_key_of_low_order(club: Club) -> None:
    with_key(club, resigned(club, key_of_peer(club), box="00" * 32))


@refused("form", "keys")
def a_key_message_that_is_none(club: Club) -> None:
    with_key(club, b"{}")


@refused("form", "keys")
def a_run_without_a_name(club: Club) -> None:
    me(club).key("", 1)


@refused("one-directory", "keys")
def masked_before_any_shares(club: Club) -> None:
    asked = (RUN, 1, keys(club), NAMES, [])
    with pytest.raises(SecureSumError, match=r"^one-directory"):
        me(club).check(*asked)
    me(club).masked(*asked, wrapped(NUMBERS[ME], BITS), BITS)


@refused("old-round", "keys")
def shares_of_a_round_without_keys(club: Club) -> None:
    me(club).shares(RUN, 2, keys(club), PLAN)


@refused("one-directory", "shares")
def a_second_directory(club: Club) -> None:
    shares(club, keys(club)[:4])


@refused("one-directory", "shares")
def masked_under_another_directory(club: Club) -> None:
    masked(club, directory=keys(club)[:4])


@refused("plan", "shares")
def shares_under_a_second_plan(club: Club) -> None:
    shares(club, keys(club), "11" * 32)


@refused("plan", "shares")
def a_share_that_was_given_under_another_plan(club: Club) -> None:
    with_share(club, resigned(club, share_of_peer(club), context="11" * 32))


@refused("share", "shares")
def a_share_that_was_altered(club: Club) -> None:
    with_share(club, resigned(club, share_of_peer(club), sealed="00" * 160))


@refused("share", "shares")
def a_share_under_other_terms_than_it_was_sealed_with(club: Club) -> None:
    with_share(club, resigned(club, share_of_peer(club), floor=1))


@refused("share", "shares")
def a_share_that_asks_for_more_members_than_there_are(club: Club) -> None:
    with_share(club, resigned(club, share_of_peer(club), quorum=6))


@refused("share", "shares")
def a_share_for_somebody_else(club: Club) -> None:
    with_share(club, share_of_peer(club, LAST))


@refused("share", "shares")
def a_share_for_somebody_else_that_says_it_is_for_me(club: Club) -> None:
    with_share(club, resigned(club, share_of_peer(club, LAST), to=ME))


@refused("share", "shares")
def a_share_that_is_missing(club: Club) -> None:
    with_share(club)


@refused("signature", "shares")
def a_share_that_its_owner_did_not_sign(club: Club) -> None:
    with_share(club, evil(share_of_peer(club)))


@refused("round", "shares")
def a_share_of_another_round(club: Club) -> None:
    with_share(club, resigned(club, share_of_peer(club), round=2))


@refused("one-directory", "shares")
def a_share_under_another_directory(club: Club) -> None:
    with_share(club, resigned(club, share_of_peer(club), directory="00" * 32))


@refused("twice", "shares")
def a_share_twice(club: Club) -> None:
    with_share(club, share_of_peer(club), share_of_peer(club))


@refused("stranger", "shares")
def a_share_of_somebody_who_gave_none(club: Club) -> None:
    masked(club, shared=FOUR)


@refused("stranger", "shares")
def somebody_outside_the_directory_gave_shares(club: Club) -> None:
    masked(club, shared=[*NAMES, "stranger"])


@refused("twice", "shares")
def somebody_gave_shares_twice(club: Club) -> None:
    masked(club, shared=[*NAMES, PEER])


@refused("own-shares", "shares")
def my_own_shares_left_out(club: Club) -> None:
    masked(club, shared=OTHERS)


@refused("few-peers", "shares")
def too_few_that_gave_shares(club: Club) -> None:
    masked(club, shared=[ME, PEER], shares=[share_of_peer(club)])


@refused("words", "shares")
def a_word_that_is_too_large(club: Club) -> None:
    masked(club, bits=3)


@refused("words", "shares")
def a_width_that_there_is_not(club: Club) -> None:
    masked(club, bits=33)


@refused("upload-first", "shares")
def shares_given_away_before_the_upload(club: Club) -> None:
    unmask(club, NAMES)


@refused("upload-first", "shares")
def a_list_confirmed_before_the_upload(club: Club) -> None:
    confirm(club, NAMES)


@refused("one-upload", "uploads")
def a_second_upload_masked_against_others(club: Club) -> None:
    masked(club, shared=FOUR)


@refused("survivors", "uploads")
def a_survivor_that_gave_no_shares(club: Club) -> None:
    unmask(club, [*NAMES, "stranger"], [])


@refused("twice", "uploads")
def a_survivor_twice(club: Club) -> None:
    unmask(club, [*NAMES, ME])


@refused("few-survivors", "uploads")
def two_survivors(club: Club) -> None:
    unmask(club, [ME, PEER])


@refused("not-among", "uploads")
def called_gone_after_the_upload(club: Club) -> None:
    unmask(club, OTHERS)


@refused("one-shared-set", "uploads")
def a_survivors_statement_that_is_missing(club: Club) -> None:
    me(club).unmask(RUN, 1, NAMES, statements(club)[1:])


@pytest.mark.parametrize("field", ["shared", "directory"])
def test_a_statement_under_another_set_does_not_count(make_club, field: str) -> None:  # type: ignore[no-untyped-def]
    club = at(make_club(5, min_peers=3), "uploads")
    with pytest.raises(SecureSumError, match=r"^one-shared-set"):
        me(club).unmask(RUN, 1, NAMES, statements(club, **{field: "00" * 32}))
    ended(club)


@refused("one-shared-set", "uploads")
def a_statement_of_another_round(club: Club) -> None:
    me(club).unmask(RUN, 1, NAMES, statements(club, round=2))


@refused("signature", "uploads")
def a_statement_that_is_forged(club: Club) -> None:
    first, *rest = statements(club)
    me(club).unmask(RUN, 1, NAMES, [evil(first), *rest])


@refused("stranger", "uploads")
def a_statement_of_a_stranger(club: Club) -> None:
    first, *rest = statements(club)
    me(club).unmask(RUN, 1, NAMES, [evil(first, site="stranger"), *rest])


@refused("twice", "uploads")
def statements_without_end(club: Club) -> None:
    me(club).confirm(RUN, 1, NAMES, statements(club) * 2)


@refused("old-round", "uploads")
def shares_of_another_run(club: Club) -> None:
    me(club).unmask("another", 1, NAMES, statements(club))


@refused("confirmations", "lists")
def a_list_that_nobody_confirms(club: Club) -> None:
    unmask(club, THREE, [])


@refused("confirmations", "lists")
def a_list_that_too_few_confirm(club: Club) -> None:
    unmask(club, THREE, confirmations(club, THREE, THREE[:2]))


@refused("confirmations", "lists")
def a_list_of_which_others_are_told_another(club: Club) -> None:
    unmask(club, THREE, [*confirmations(club, THREE, THREE[:2]), *confirmations(club, NAMES, NAMES[2:])])


@refused("confirmations", "lists")
def a_list_that_one_confirms_who_is_gone(club: Club) -> None:
    unmask(club, THREE, confirmations(club, THREE, [ME, PEER, LAST]))


@refused("confirmations", "lists")
def a_list_that_one_confirms_often(club: Club) -> None:
    unmask(club, THREE, confirmations(club, THREE, [ME]) * 5)


@refused("signature", "lists")
def a_list_with_forged_confirmations(club: Club) -> None:
    unmask(club, THREE, [evil(told) for told in confirmations(club, THREE, THREE)])


@refused("one-list", "lists")
def another_list_after_a_confirmation(club: Club) -> None:
    confirm(club, THREE)
    unmask(club, FOUR)


@refused("one-list", "lists")
def everybody_after_a_confirmation(club: Club) -> None:
    confirm(club, THREE)
    unmask(club, NAMES)


@refused("one-list", "lists")
def another_list_after_the_answer(club: Club) -> None:
    unmask(club, THREE)
    unmask(club, FOUR)


@refused("one-list", "lists")
def another_confirmation_after_the_answer(club: Club) -> None:
    unmask(club, THREE)
    confirm(club, NAMES)


def at(club: Club, stage: str) -> Club:
    drill.give_keys(club)
    if stage != "keys":
        drill.give_shares(club, NAMES)
    if stage == "uploads":
        drill.upload(club, NAMES, NUMBERS)
    if stage == "lists":
        drill.upload(club, THREE, NUMBERS)
    return club


def ended(club: Club) -> None:
    """The rest of the round, as an honest server plays it: the sum is exact."""
    drill.give_shares(club, NAMES)
    drill.upload(club, NAMES, NUMBERS)
    drill.confirm(club, NAMES)
    drill.unmask(club, NAMES)
    opened = club.server.opened()
    assert isinstance(opened, Opened)
    assert (opened.total == sum(NUMBERS[name] for name in opened.sites)).all()


@pytest.mark.parametrize(("stage", "word", "attack"), CASES, ids=[attack.__name__ for *_, attack in CASES])
def test_each_check_refuses_also_from_disk_and_the_honest_rest_adds_up(  # type: ignore[no-untyped-def]
    make_club, stage: str, word: str, attack: Attack
) -> None:
    club = at(make_club(5, min_peers=3), stage)
    if stage == "lists":
        club.server.survivors()
    for _ in range(2):
        with pytest.raises(SecureSumError, match=rf"^{word}: "):
            attack(club)
        club.reopen()
    ended(club)


def test_every_check_of_the_table_is_tried() -> None:
    told = {line.split()[0] for line in (checks.__doc__ or "").splitlines() if line[:1].islower()}
    assert told - {"word"} == {word for _, word, _ in CASES} | {"store"}  # that one: test_again.py, test_store.py
    assert set(checks.REMEDIES) <= told


def test_a_refusal_leaves_the_site_as_one_word() -> None:
    refusal = checks.refuse("one-list", "x")
    assert refusal.code == "secure"
    assert refusal.code in CODES
    assert refusal.remedy == checks.SERVER


def test_a_site_that_is_listed_with_another_identity_does_not_begin(make_club) -> None:  # type: ignore[no-untyped-def]
    club = make_club(3)
    policy = replace(club.policy, peers={**club.policy.peers, ME: EVIL.public})
    with pytest.raises(SecureSumError, match=r"^own-key"):
        drill.open_member(club.home / ME, ME, policy)
