"""What an epsilon of shared noise is if not all of the other sites keep their noise to themselves.

A site trusts h of its N - 1 others: they never tell theirs to the server. Then the others may, and epsilon counts its
own share and ``PrivacyPlan.counted(h)`` more. h = N - 1: against the server alone. h = N - 2: against any one of the
other sites, with the server or without. h = 0: by the site's own share, whoever is with the server.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from llmchain_fl.core.privacy.plan import PrivacyPlan
from llmchain_fl.report.wording import epsilon_text

MOST = 12
"""Most sites for which each h is computed: a composition costs a tenth of a second."""
FIELD = "epsilon_by_trusted_peers"
"""Of ``privacy.json``: h, as text, -> epsilon of the site that has spent most."""
MEANS = (
    "epsilon of the site that has spent most, by how many of the other sites never tell their noise to the server: it "
    "holds against the server together with all the others; 0: by the site's own share of the noise, whoever joins"
)


def peers_to_show(members: int) -> list[int]:
    """h of a small table, ascending: all of up to MOST sites; of more so many, with 0, half of them, N - 2, N - 1."""
    others, steps = members - 1, min(members, MOST) - 1
    return sorted({round(step * others / steps) for step in range(steps + 1)} | {half_of(others), others - 1})


def half_of(others: int) -> int:
    """Half of the other sites, rounded up."""
    return (others + 1) // 2


def by_trusted_peers(plans: Sequence[PrivacyPlan], epsilon: Callable[[int], float]) -> dict[int, float]:
    """h -> epsilon; empty where no plan shares noise.

    Args:
        plans: of the run so far.
        epsilon: of everything that was spent, if h others are trusted.
    """
    members = max((plan.members for plan in plans if plan.is_shared), default=0)
    return {trusted: epsilon(trusted) for trusted in peers_to_show(members)} if members else {}


def in_words(epsilons: Mapping[int, float]) -> str:
    """Both numbers, and the one between them, in a sentence that stands beside their delta, unit and accountant.

    =================================================  =====================================
    table                                              said
    =================================================  =====================================
    fewer than two entries (no shared noise, old runs) ""
    half of the others                                 left out where it is one of the two
    an epsilon that is not finite                      "no finite bound"
    =================================================  =====================================
    """
    texts = {trusted: epsilon_text(value) for trusted, value in epsilons.items()}
    if len(texts) < 2 or 0 not in texts:
        return ""
    others, middle = max(texts), ""
    half = half_of(others)
    if texts.get(half, texts[0]) not in (texts[0], texts[others]):
        middle = f"; together with {others - half} of the {others} other sites {texts[half]}"
    return (
        f"Against the server alone epsilon is {texts[others]}{middle}; by a site's own share of the noise, whoever is "
        f"with the server, {texts[0]}"
    )
