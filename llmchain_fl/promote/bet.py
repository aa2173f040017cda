"""A sequential test whether a candidate answers worse than what is served, that may be looked at after every vote."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

STAKES = (0.3, 0.6)
"""Shares of the wealth that are bet (`benchmarks/bench_canary.py --choose`)."""


@dataclass
class Bet:
    """Betting against "the candidate is no worse" (Waudby-Smith and Ramdas 2024, JRSS B 86; Shafer 2021, JRSS A 184).

        X_i in [-1, 1]: above 0 where vote i speaks for the candidate, E[X_i | past] >= 0 if it is no worse
        W_n(l) = prod_{i <= n} (1 - l X_i),   W_n = mean over the stakes l in ``STAKES`` of W_n(l)

    W_n is what somebody has who began with 1 and bets on the candidate's being worse. If it is no worse, W is a
    supermartingale, for each W(l) is one and so is their mean; then (Ville 1939)

        P(there is an n with W_n >= 1 / alpha) <= alpha,

    however often it is looked at and whenever it ends. A mean over stakes is the mixture of mSPRT (Robbins 1970;
    Johari et al. 2022), with a sum in place of the integral. One-sided: a better candidate is never stopped by it.

    | case | W |
    |---|---|
    | no vote, votes that say nothing (X = 0) | 1, unchanged |
    | n votes against, of full weight | mean of (1 + l)^n: 1 / 0.05 after 8 |
    | n votes for | falls, never below 0 |
    | it was 1 / alpha or more once | worse stays true |

    Raises:
        ValueError: a vote outside [-1, 1].
    """

    alpha: float
    logs: list[float] = field(default_factory=lambda: [0.0] * len(STAKES))
    """log W_n(l) of each stake."""
    votes: int = 0
    """Votes that said something."""
    worse: bool = False

    def see(self, vote: float) -> bool:
        """One vote X; whether the candidate is shown to be worse by now."""
        if not -1 <= vote <= 1:
            raise ValueError(f"a vote of {vote}")
        if vote:
            self.votes += 1
            self.logs = [log + math.log1p(-stake * vote) for log, stake in zip(self.logs, STAKES, strict=True)]
        self.worse = self.worse or self.evidence >= 1 / self.alpha
        return self.worse

    @property
    def evidence(self) -> float:
        """W_n."""
        top = max(self.logs)
        return math.exp(min(top, 700.0)) * sum(math.exp(log - top) for log in self.logs) / len(self.logs)
