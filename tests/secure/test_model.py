"""The rules of ``member.py`` as a game on sets: what a server can open that tells each member something else.

No cryptography, no code of the product but ``Policy.terms`` and ``needs_quorum``: who gives which share to whom under
which story, and which sums follow. Stories are drawn around a victim set, so that a rule that is one too weak loses.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from llmchain_fl.core.secure.policy import Policy, Terms
from llmchain_fl.core.secure.survivors import needs_quorum

Set = frozenset[int]


@dataclass(frozen=True)
class Game:
    """Members 0 to count - 1 in a ring, the colluders, and what everybody's policy asks for."""

    count: int
    colluders: Set
    holders: tuple[Set, ...]
    terms: Terms
    sparse: bool

    @property
    def honest(self) -> list[int]:
        return [one for one in range(self.count) if one not in self.colluders]


@dataclass(frozen=True)
class Story:
    """What the server tells each honest member: who gave shares, who survived."""

    shared: dict[int, Set]
    alive: dict[int, Set]


def game(count: int, colluders: int, neighbours: int, draw: random.Random) -> Game:
    reach = range(-(neighbours // 2), neighbours // 2 + 1)
    sparse = neighbours < count - 1
    ring = [
        frozenset((one + step) % count for step in reach) if sparse else frozenset(range(count)) for one in range(count)
    ]
    terms = Policy({}, min_peers=2, colluders=colluders).terms(count, len(ring[0]))
    return Game(count, frozenset(draw.sample(range(count), colluders)), tuple(ring), terms, sparse)


def story(game: Game, draw: random.Random) -> Story:
    everybody, floor = frozenset(range(game.count)), game.terms.floor

    def filled(some: Set, size: int) -> Set:
        return some | frozenset(draw.sample(sorted(everybody - some), max(0, size - len(some))))

    victims = frozenset(draw.sample(game.honest, draw.randint(1, max(1, floor - len(game.colluders)))))
    sets = [everybody, filled(victims | game.colluders, floor), filled(victims, draw.randint(floor, game.count))]
    weights = draw.choice([(1, 0, 0), (3, 1, 0), (2, 1, 1)])
    shared = {one: draw.choices(sets, weights)[0] | {one} for one in game.honest}
    shared = {
        one: told
        for one, told in shared.items()
        if len(told) >= floor and len(told & game.holders[one]) >= game.terms.threshold
    }
    size = draw.choice([floor, (game.count + floor) // 2, (game.count + floor + 1) // 2])
    lists, alone = [filled(victims, draw.choice([size, floor])) for _ in range(3)], draw.random()
    alive = {
        one: ((filled(victims | {one}, size) if draw.random() < alone else draw.choice([*lists, told])) & told) | {one}
        for one, told in shared.items()
    }
    return Story(shared, {one: told for one, told in alive.items() if len(told) >= floor})


Rule = Callable[[Game, Story, int], bool]


def stated(game: Game, told: Story, one: int) -> bool:
    near = (told.alive[one] & game.holders[one]) - game.colluders
    return all(told.shared.get(other) == told.shared[one] for other in near)


def confirmed(game: Game, told: Story, one: int) -> bool:
    same = [
        other
        for other in told.alive
        if (told.shared[other], told.alive[other]) == (told.shared[one], told.alive[one]) and stated(game, told, other)
    ]
    return len(same) + len(game.colluders & told.alive[one]) >= game.terms.quorum


def product(game: Game, told: Story, one: int) -> bool:
    """Whether a member gives its shares: the rules of the product."""
    shared, alive = len(told.shared[one]), len(told.alive[one])
    if not stated(game, told, one):
        return False
    return not needs_quorum(game.count, shared, alive, game.terms.floor, game.sparse) or confirmed(game, told, one)


def unconfirmed(game: Game, told: Story, one: int) -> bool:
    """The same without any confirmation."""
    return stated(game, told, one)


def one_more(game: Game, told: Story, one: int) -> bool:
    """The same where one or two more may be gone without a confirmation."""
    shared, alive = len(told.shared[one]), len(told.alive[one])
    free = 2 * (game.count - alive - 1) <= game.count - game.terms.floor + 1
    return stated(game, told, one) and (free or shared == alive or confirmed(game, told, one))


def opened(game: Game, told: Story, rule: Rule) -> Iterator[tuple[Set, bool]]:
    """(a smallest set of honest members whose sum is open, whether somebody's two secrets are)."""
    given: dict[tuple[int, bool], set[int]] = {
        (one, kind): set() for one in range(game.count) for kind in (True, False)
    }
    for giver, alive in told.alive.items():
        if rule(game, told, giver):
            for owner in game.holders[giver] & told.shared[giver]:
                given[owner, owner in alive].add(giver)
    known = {
        kind: {
            one
            for one in game.honest
            if len(given[one, kind]) + len(game.colluders & game.holders[one]) >= game.terms.threshold
        }
        for kind in (True, False)
    }
    both = bool(known[True] & known[False])
    uploads = [one for one in told.shared if one in known[True]]

    def falls(part: tuple[int, ...]) -> bool:
        return all(
            other in known[False] or one in known[False] or (other in part and one in told.shared[other])
            for one in part
            for other in (told.shared[one] & game.holders[one]) - {one} - game.colluders
        )

    for size in range(1, len(uploads) + 1):
        found = next(filter(falls, itertools.combinations(uploads, size)), None)
        if found is not None:
            yield frozenset(found), both
            return


def smallest(count: int, colluders: int, neighbours: int, rule: Rule, tries: int) -> tuple[int, int, bool, int]:
    """(honest members in the smallest opened sum, what must be in it, any two secrets of one, sums opened)."""
    draw = random.Random(count * 100 + colluders * 10 + neighbours)
    found = [
        (len(part), both)
        for played in (game(count, colluders, neighbours, draw) for _ in range(tries))
        for part, both in opened(played, story(played, draw), rule)
    ]
    promised = game(count, colluders, neighbours, draw).terms.floor - colluders
    return min(size for size, _ in found), promised, any(both for _, both in found), len(found)


CASES = [
    (3, 0, 2),
    (4, 0, 3),
    (5, 0, 4),
    (5, 1, 4),
    (6, 0, 5),
    (6, 1, 5),
    (7, 0, 6),
    (7, 1, 6),
    (7, 0, 4),
    (8, 0, 4),
    (9, 1, 6),
]


@pytest.mark.parametrize(("count", "colluders", "neighbours"), CASES)
def test_no_story_opens_less_than_the_floor_or_both_secrets_of_a_member(
    count: int, colluders: int, neighbours: int
) -> None:
    size, promised, both, sums = smallest(count, colluders, neighbours, product, 2500)
    assert sums > 0
    assert size >= promised
    assert not both


@pytest.mark.parametrize(("count", "colluders", "neighbours"), [(5, 0, 4), (6, 1, 5), (7, 0, 6), (7, 0, 4), (8, 0, 4)])
def test_without_confirmations_some_story_does(count: int, colluders: int, neighbours: int) -> None:
    size, promised, *_ = smallest(count, colluders, neighbours, unconfirmed, 2500)
    assert size < promised


@pytest.mark.parametrize(("count", "colluders", "neighbours"), [(5, 0, 4), (6, 0, 5), (6, 1, 5)])
def test_with_one_more_that_may_go_unconfirmed_some_story_does(count: int, colluders: int, neighbours: int) -> None:
    size, promised, *_ = smallest(count, colluders, neighbours, one_more, 4000)
    assert size < promised
