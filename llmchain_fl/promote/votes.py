"""What one person's feedback on one answer says of two adapters. Standard library only."""

from __future__ import annotations

UP, DOWN = "up", "down"


def vote(kind: str, *, by_candidate: bool, share: float, served: str, other: str | None, correction: str) -> float:
    """X in [-1, 1] of :class:`~llmchain_fl.promote.bet.Bet`: above 0 for the candidate.

        X = (+1 the candidate is right and the current one is not, -1 the other way round, 0 nothing said) x m / p,
        p = chance of the arm that answered (``share``, 1 - ``share``),  m = min(share, 1 - share)

    Both adapters are held against each other on the same input: the one that was not asked is asked when the feedback
    comes (``other``), and an input on which both say the same tells nothing of which is better. Arms follow from a
    keyed hash of the person, so that people of both are alike; divided by the chance of its arm a vote weighs what it
    would under a fair draw (inverse propensity). Then E[X] is 0 if both are right equally often where they differ, also
    where people complain more readily than they praise, as long as they do so equally in both arms.

    | kind | the answer that was served is | the other one is |
    |---|---|---|
    | both the same | nothing said | |
    | up | right | wrong, for it is another |
    | down | wrong | taken as right: so it is on average as often as its arm's |
    | correct, choose: the other's answer | wrong | right |
    | correct, choose: neither's answer | wrong | wrong: nothing said |
    | correct, choose: the served answer | right | wrong |
    | any, ``other`` None (a written text) | up: right, else wrong | the other way round |
    """
    if other == served:
        return 0.0
    if kind == UP:
        good = True
    elif kind == DOWN or other is None:
        good = False
    elif correction in (served, other):
        good = correction == served
    else:
        return 0.0
    chance = share if by_candidate else 1 - share
    return (1.0 if good == by_candidate else -1.0) * min(share, 1 - share) / chance
