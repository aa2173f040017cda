"""How soon is a worse candidate stopped, how often an equal one: five designs on made-up votes.

    python benchmarks/bench_canary.py [--choose] [--trials 200]

A candidate that is 5 points worse, or as good; both differ on a share of inputs (`differ`), and are both wrong on a
fifth of these. Persons say `up` where the answer was right; where it was wrong half say `down`, half name the right
label. Designs:

* arms         votes of both arms compared, always valid: bets on votes that know nothing of the other answer
* mSPRT        the same, by the normal mixture of Johari et al. 2022 on the difference of two proportions
* sequential   the same, looked at four times only, O'Brien and Fleming's bounds (not valid in between)
* paired       both adapters on the input that a vote is about, bets on inputs where they differ: what is built
* paired, ask  the same, where persons are asked for a vote on answers that differ (`ask`): four times as often

Stopped: of the trials, within 400 feedbacks. An equal one: within 2,000.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from bench import show, write

LIMIT, LONG, ALPHA, WORSE = 400, 2000, 0.05, 0.05
CHOOSING, REPORTED = 1_000, 900_000
Votes = tuple[np.ndarray, np.ndarray]
"""Of each feedback: whether the candidate answered; up, down or the two kinds of correction (as numbers)."""


def feedbacks(count: int, worse: float, differ: float, right: float, draw: np.random.Generator) -> list[dict[str, Any]]:
    """``right``: share of right answers of the current adapter; ``differ``: of inputs on which they differ."""
    both_wrong = 0.2 * differ
    better, worse_by = (0.8 * differ - worse) / 2, (0.8 * differ + worse) / 2
    kinds = draw.choice(4, size=count, p=[1 - differ, better, worse_by, both_wrong])
    arms, luck, names = draw.random(count) < 0.5, draw.random(count), draw.random(count) < 0.5
    same_right = (right - worse_by) / (1 - differ)
    found = []
    for kind, by_candidate, u, name in zip(kinds, arms, luck, names, strict=True):
        good = u < same_right if kind == 0 else kind == (1 if by_candidate else 2)
        other = "served" if kind == 0 else "other"
        truth = "served" if good else "other" if kind in (1, 2) else "third"
        kind_said = "up" if good else "choose" if name else "down"
        found.append({"by_candidate": bool(by_candidate), "kind": kind_said, "other": other,
                      "correction": truth if kind_said == "choose" else "", "good": bool(good)})  # fmt: skip
    return found


def asked_for(votes: list[dict[str, Any]], ratio: float, count: int, draw: np.random.Generator) -> list[dict[str, Any]]:
    """Of these inputs, the ones that get a vote where those that differ get it ``ratio`` times as often."""
    return [one for one in votes if one["other"] != "served" or draw.random() < 1 / ratio][:count]


def by_bets(paired: bool) -> Callable[[list[dict[str, Any]]], int | None]:
    """After how many feedbacks it is stopped; None: never."""
    from llmchain_fl.promote.bet import Bet
    from llmchain_fl.promote.votes import vote

    def play(votes: list[dict[str, Any]]) -> int | None:
        bet = Bet(ALPHA)
        for number, one in enumerate(votes, 1):
            other = one["other"] if paired else None
            said = vote(one["kind"], by_candidate=one["by_candidate"], share=0.5, served="served", other=other,
                        correction=one["correction"])  # fmt: skip
            if bet.see(said):
                return number
        return None

    return play


def by_msprt(votes: list[dict[str, Any]], variance: float = 0.01) -> int | None:
    """Johari et al. 2022, eq. 9: the mixture likelihood ratio of a difference, prior N(0, ``variance``), one-sided."""
    n, good = [0, 0], [0, 0]
    for number, one in enumerate(votes, 1):
        n[one["by_candidate"]] += 1
        good[one["by_candidate"]] += one["good"]
        if min(n) < 10:
            continue
        means = [good[k] / n[k] for k in (0, 1)]
        spread = sum(max(m * (1 - m), 1e-3) / k for m, k in zip(means, n, strict=True))
        apart = means[1] - means[0]
        ratio = math.sqrt(spread / (spread + variance)) * math.exp(
            variance * apart**2 / (2 * spread * (spread + variance))
        )
        if apart < 0 and ratio >= 1 / (2 * ALPHA):
            return number
    return None


def by_looks(votes: list[dict[str, Any]]) -> int | None:
    """Two proportions at 100, 200, 300, 400: z <= -c sqrt(4 / look), c = 1.732 (5 %, Jennison and Turnbull 2000)."""
    for look in range(1, 5):
        part = votes[: 100 * look]
        arms = [[one["good"] for one in part if one["by_candidate"] is arm] for arm in (False, True)]
        if not all(arms):
            continue
        means = [sum(arm) / len(arm) for arm in arms]
        pool = sum(map(sum, arms)) / len(part)
        spread = math.sqrt(max(pool * (1 - pool), 1e-3) * sum(1 / len(arm) for arm in arms))
        if (means[1] - means[0]) / spread <= -1.732 * math.sqrt(4 / look):
            return 100 * look
    return None


def designs() -> dict[str, Callable[[list[dict[str, Any]]], int | None]]:
    """Name -> how it plays."""
    return {"arms": by_bets(False), "mSPRT": by_msprt, "sequential": by_looks, "paired": by_bets(True),
            "paired, ask": by_bets(True)}  # fmt: skip


def stopped(
    name: str, play: Any, trials: int, first: int, worse: float, differ: float, right: float
) -> tuple[float, float]:
    """(share of trials that are stopped, median feedbacks until then)."""
    count, when = LIMIT if worse else LONG, []
    for trial in range(trials):
        draw = np.random.default_rng(first + trial)
        votes = feedbacks(count * (4 if "ask" in name else 1), worse, differ, right, draw)
        votes = asked_for(votes, 4.0, count, draw) if "ask" in name else votes
        number = play(votes)
        when.append(math.inf if number is None else number)
    return sum(one < math.inf for one in when) / trials, float(np.median(when))


def correlated(trials: int, first: int, most: int) -> float:
    """An equal candidate, persons with moods: each always praises or always complains; ``most`` votes count of each."""
    from llmchain_fl.promote.bet import Bet
    from llmchain_fl.promote.votes import vote

    count = 0
    for trial in range(trials):
        draw, bet = np.random.default_rng(first + trial), Bet(ALPHA)
        for _ in range(200):
            mood, arm = draw.random() < 0.5, bool(draw.random() < 0.5)
            for _ in range(most):
                kind = "up" if mood else "down"
                bet.see(vote(kind, by_candidate=arm, share=0.5, served="a", other="b", correction=""))
        count += bet.worse
    return count / trials


def main() -> None:
    """See the file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--choose", action="store_true", help="other stakes, on other seeds")
    parser.add_argument("--trials", type=int, default=200)
    told = parser.parse_args()
    if told.choose:
        from llmchain_fl.promote import bet

        lines, trials = [], told.trials
        for stakes in (
            (0.5,),
            (0.3, 0.6),
            (0.2, 0.4, 0.6, 0.8),
            (0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 0.9),
            tuple(k / 20 for k in range(1, 20)),
        ):
            bet.STAKES = stakes  # type: ignore[misc]
            play = by_bets(True)
            lines.append([stakes if len(stakes) < 8 else "0.05 .. 0.95",
                          *(stopped("paired", play, trials, CHOOSING, WORSE, d, 0.9)[0] for d in (0.07, 0.1, 0.15)),
                          stopped("paired", play, told.trials, CHOOSING, 0.0, 0.1, 0.9)[0]])  # fmt: skip
        show(
            "Stakes: stopped at 7, 10, 15 % that differ; an equal one",
            ["stakes", "7 %", "10 %", "15 %", "equal"],
            lines,
        )
        return
    result: dict[str, Any] = {"trials": told.trials, "alpha": ALPHA, "worse": {}, "equal": {}}
    for name, play in designs().items():
        for right in (0.9, 0.75) if "paired" in name else (0.9,):
            for differ in (0.07, 0.1, 0.15, 0.2):
                key = f"{name}; {right:.0%} right; {differ:.0%} differ"
                result["worse"][key] = stopped(name, play, told.trials, REPORTED, WORSE, differ, right)
        result["equal"][name] = stopped(name, play, told.trials, REPORTED + 50_000, 0.0, 0.1, 0.9)[0]
    result["persons with moods"] = {most: correlated(told.trials, REPORTED + 90_000, most) for most in (1, 3)}
    show("5 points worse: stopped within 400 feedbacks", ["design", "share", "median"],
         [[name, f"{share:.3f}", when] for name, (share, when) in result["worse"].items()])  # fmt: skip
    show("As good: stopped within 2,000", ["design", "share"], list(result["equal"].items()))
    show(
        "As good, 200 persons with moods: stopped",
        ["votes of each", "share"],
        list(result["persons with moods"].items()),
    )
    write("canary", result)


if __name__ == "__main__":
    main()
