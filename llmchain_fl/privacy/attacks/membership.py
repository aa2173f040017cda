"""Who was trained on? A membership attack on a finished adapter, and the most that (epsilon, delta) would allow.

Score of a record: minus its loss (Yeom et al. 2018, arXiv 1709.01604); with ``calibrated``, its loss before training
minus its loss after (difficulty calibration, Watson et al. 2022, arXiv 2111.08440): hard texts are hard for everybody.
Score of a person: the mean over that person's records. A guess says "member" above a threshold.

This is a weak attack: one model, no shadow models, no look at the updates. Finding nothing proves little. Finding more
than the ceiling proves the claim wrong, *provided* a fair coin parted members and others before training (as
``canaries.py`` does): two sets that differ by themselves look like leakage.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy.stats import beta as beta_law
from scipy.stats import rankdata

from llmchain_fl.core.errors import PrivacyError

if TYPE_CHECKING:
    from llmchain_fl.core.tasks.base import Examples, Task

Scores = NDArray[np.float64]

FALSE_ALARMS = 0.01
"""Share of non-members that may be taken for members."""

LEVEL = 0.05
"""Error of the confidence limits, both sides together."""

FEWEST = 20
"""With fewer members or others than this nothing is said."""


@dataclass(frozen=True)
class Claim:
    """What is promised: (epsilon, delta) for one unit; epsilon infinity for no promise."""

    epsilon: float
    delta: float


@dataclass(frozen=True)
class Membership:
    """How well members and others were told apart.

    Attributes:
        unit: "record" or "person".
        members: how many of them were trained on.
        others: how many were not.
        auc: chance that a member scores above somebody else, ties half; 0.5 is guessing.
        auc_error: its standard error (Hanley & McNeil 1982, Radiology 143:29).
        found: share of the members above the threshold (true positive rate) ...
        found_low: ... at least, and
        found_high: ... at most (Clopper-Pearson, LEVEL).
        false_alarms: share of the others above the threshold ...
        false_alarms_high: ... at most. The threshold is the (k+1)-th largest of the others' scores; the share of all
            others above it then has the law Beta(k+1, n-k), whose upper quantile is just Clopper-Pearson's for k of n.
        claim: what was promised.
    """

    unit: str
    members: int
    others: int
    auc: float
    auc_error: float
    found: float
    found_low: float
    found_high: float
    false_alarms: float
    false_alarms_high: float
    claim: Claim

    @property
    def ceiling(self) -> float:
        """The most that the claim allows to find at ``FALSE_ALARMS``."""
        return most_found(FALSE_ALARMS, self.claim)

    @property
    def alive(self) -> bool:
        """Whether the attack found members at all, beyond chance and confidence limits."""
        return self.found_low > self.false_alarms_high

    @property
    def broken(self) -> bool:
        """Whether more was found than the claim allows, limits on both sides taken against us."""
        return self.found_low > most_found(self.false_alarms_high, self.claim)

    @property
    def verdict(self) -> str:
        """What this says, in plain words."""
        if min(self.members, self.others) < FEWEST:
            return f"Too few to say anything: {self.members} members, {self.others} others."
        limits = f"{self.found_low:.1%} to {self.found_high:.1%}"
        seen = f"Found {self.found:.1%} ({limits}) of the members at {self.false_alarms:.1%} false alarms"
        if self.broken:
            allowed = most_found(self.false_alarms_high, self.claim)
            return (
                f"{seen}; epsilon {self.claim.epsilon:g} allows {allowed:.1%} at most. The claim is broken, or members "
                "and others differed before training."
            )
        if self.alive:
            return f"{seen}: the adapter gives members away, or the two sets differed before training."
        return f"{seen}: no more than guessing. That proves little: this is a weak attack, and better ones exist."


def most_found(false_alarms: float, claim: Claim) -> float:
    """The largest true positive rate of any test under (epsilon, delta)-DP (Kairouz et al. 2015, arXiv 1311.0776).

    min(e^eps a + delta, 1 - e^-eps (1 - a - delta)) at false positive rate a.

    ======================  ================
    case                    result
    ======================  ================
    epsilon 0, delta 0      a: guessing
    epsilon infinite        1
    a = 0                   delta, at most
    a = 1                   1
    ======================  ================
    """
    if math.isinf(claim.epsilon) or false_alarms >= 1:
        return 1.0
    grown = math.exp(min(claim.epsilon, 700.0)) * false_alarms + claim.delta
    other_side = 1.0 - math.exp(-claim.epsilon) * (1.0 - false_alarms - claim.delta)
    return float(min(1.0, max(0.0, min(grown, other_side))))


def tell_apart(members: Scores, others: Scores, claim: Claim, unit: str = "record") -> Membership:
    """Judge scores, one for each unit, larger for members.

    ==============================  ==============================================================
    case                            result
    ==============================  ==============================================================
    all scores equal                AUC 0.5, nobody found
    fewer than 100 others           threshold at the largest of them: no false alarm at all
    a score is not finite           PrivacyError
    one side is empty               PrivacyError
    ==============================  ==============================================================

    Raises:
        PrivacyError: nothing to compare, or a score that is no number.
    """
    ours, theirs = np.asarray(members, dtype=np.float64), np.asarray(others, dtype=np.float64)
    if not (len(ours) and len(theirs) and np.isfinite(ours).all() and np.isfinite(theirs).all()):
        raise PrivacyError(
            f"{len(ours)} members and {len(theirs)} others: at least one of each with finite scores is wanted",
            remedy="a loss that is not finite means a damaged adapter",
        )
    m, n = len(ours), len(theirs)
    auc, error = area(ours, theirs)
    allowed = math.floor(FALSE_ALARMS * n + 1e-9)
    threshold = np.sort(theirs)[n - 1 - allowed]
    hits, alarms = int((ours > threshold).sum()), int((theirs > threshold).sum())
    low, high = clopper_pearson(hits, m)
    return Membership(
        unit=unit,
        members=m,
        others=n,
        auc=auc,
        auc_error=error,
        found=hits / m,
        found_low=low,
        found_high=high,
        false_alarms=alarms / n,
        false_alarms_high=clopper_pearson(allowed, n)[1],
        claim=claim,
    )


def area(members: Scores, others: Scores) -> tuple[float, float]:
    """AUC (Mann-Whitney: share of pairs in which the member is above, ties half) and its standard error."""
    m, n = len(members), len(others)
    auc = float((rankdata(np.concatenate([members, others]))[:m].sum() - m * (m + 1) / 2) / (m * n))
    one, two = auc / (2 - auc), 2 * auc**2 / (1 + auc)
    variance = (auc * (1 - auc) + (m - 1) * (one - auc**2) + (n - 1) * (two - auc**2)) / (m * n)
    return auc, math.sqrt(max(0.0, variance))


def clopper_pearson(hits: int, trials: int, level: float = LEVEL) -> tuple[float, float]:
    """Exact limits of a share (Clopper & Pearson 1934): none of n -> 0 to 1 - (level / 2)^(1/n)."""
    low = 0.0 if hits == 0 else float(beta_law.ppf(level / 2, hits, trials - hits + 1))
    high = 1.0 if hits == trials else float(beta_law.ppf(1 - level / 2, hits + 1, trials - hits))
    return low, high


def by_person(scores: Scores, people: Sequence[str]) -> Scores:
    """Mean score of each person, in order of first appearance. The mean: how many records somebody has is no sign.

    Raises:
        PrivacyError: not one name for each score.
    """
    if len(scores) != len(people):
        raise PrivacyError(f"{len(scores)} scores, {len(people)} names", remedy="give one name for each record")
    place = {person: number for number, person in enumerate(dict.fromkeys(people))}
    index = np.array([place[person] for person in people], dtype=np.int64)
    totals = np.bincount(index, weights=scores, minlength=len(place))
    return np.asarray(totals / np.bincount(index, minlength=len(place)), dtype=np.float64)


def record_losses(task: Task, examples: Examples, batch: int = 64) -> Scores:
    """The task's loss of each record under the adapter that is loaded, float64 [n]."""
    import torch

    from llmchain_fl.core.tasks.base import by_length

    losses = np.zeros(len(examples))
    with torch.no_grad():
        for index in by_length(examples, batch):
            losses[index] = task.losses(task.forward(examples, index)).double().cpu().numpy()
    return examples.by_record(losses)


def record_scores(task: Task, examples: Examples, *, calibrated: bool = True) -> Scores:
    """Minus the loss of each record; ``calibrated``: plus its loss under the untrained adapter. Nothing is changed."""
    scores = -record_losses(task, examples)
    if not calibrated:
        return scores
    resident = task.resident
    keep = resident.theta.clone()
    try:
        resident.reset()
        return scores + record_losses(task, examples)
    finally:
        resident.theta.copy_(keep)


def infer_membership(
    task: Task,
    members: Examples,
    others: Examples,
    claim: Claim,
    *,
    people: tuple[Sequence[str], Sequence[str]] | None = None,
    calibrated: bool = True,
) -> Membership:
    """The attack on the adapter that is loaded in ``task``. ``people``: whose the members' and the others' records are.

    Raises:
        PrivacyError: a side is empty, a loss is not finite, or names do not fit.
    """
    ours, theirs = (record_scores(task, examples, calibrated=calibrated) for examples in (members, others))
    if people is None:
        return tell_apart(ours, theirs, claim)
    return tell_apart(by_person(ours, people[0]), by_person(theirs, people[1]), claim, unit="person")
