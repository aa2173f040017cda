"""Who adds the noise: a short value beside every epsilon, and the trust that it stands for, in words.

===============  =====================================  ===============================================================
value            noise                                  against whom an epsilon holds
===============  =====================================  ===============================================================
``site``         each site adds all of it               everybody
``server``       the server adds it (unit ``site``)     everybody but the server
``sum 3``        3 sites share it, on their sum         the server alone, and who sees what it makes of the sums
``sum 4-5``      as many as 4 to 5                      the same
``counted``      a ledger: also shares of others        the server with all others but those that the site counts
none (old runs)  ``server`` of unit ``site``            as above
                 ``site`` of any other unit
anything else    not stated                             not stated
===============  =====================================  ===============================================================
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from llmchain_fl.core.privacy.plan import PrivacyPlan

COUNTED = "counted"
"""Of a site's ledger in which shared noise stands."""


@dataclass(frozen=True)
class Words:
    """What is said of one case.

    Attributes:
        short: stands beside every epsilon; ``{}``: how many sites.
        place: where the noise is added.
        seen_by: for whom the odds are what epsilon says.
        trusted: whom a site has to trust, in a sentence or two.
    """

    short: str
    place: str
    seen_by: str
    trusted: str


_WORDS: Mapping[str, Words] = MappingProxyType(
    {
        "site": Words(
            "noise added at each site",
            "the sites",
            "whoever sees what left the sites",
            "Each site adds the noise before anything leaves it: it need not trust the server or another site.",
        ),
        "server": Words(
            "noise added at the server, which is trusted",
            "the server, which is trusted with each site's update",
            "whoever sees what left the server",
            "The server clips every update and adds the noise: sites that take part trust it to do so.",
        ),
        "sum": Words(
            "noise on the sum of {} sites, which share it; against the server alone",
            "the sites, which share it: it is whole in their sum only",
            "the server alone, and whoever sees what it makes of the sums",
            "The sites share the noise, and the server sees their sum only: a site trusts the others not to tell the "
            "server theirs, or counts fewer of them (`secure.counted_peers` of its own file).",
        ),
        COUNTED: Words(
            "noise of this site, and of shared noise what it counts",
            "the sites",
            "the server together with all other sites but those that the site counts",
            "Of shared noise the ledger counts the site's own share and those of the others that its file trusts.",
        ),
    }
)
_UNSTATED = Words("noise not stated", "a place that is not stated", "whom is not stated", "Who adds it is not stated.")
_VALUE = re.compile(rf"(site|server|{COUNTED})|sum (\d{{1,6}})(?:-(\d{{1,6}}))?")


def noised_by(plan: PrivacyPlan) -> str:
    """The value for a run under ``plan``."""
    return noise_of_sum(plan.shares, plan.members) if plan.is_shared else _usual(plan.unit)


def noise_of_sum(fewest: int, most: int) -> str:
    """The value for noise that ``fewest`` to ``most`` sites share."""
    return f"sum {fewest}" + (f"-{most}" if most > fewest else "")


def noise_words(noise: str, unit: str) -> Words:
    """What is said of a value; "" (a run of an earlier version) is that of its privacy unit."""
    match = _VALUE.fullmatch(noise or _usual(unit))
    if match is None:
        return _UNSTATED
    name, fewest, most = match[1] or "sum", match[2], match[3]
    words = _WORDS[name]
    return Words(
        words.short.format(f"{fewest} to {most}" if most else fewest), words.place, words.seen_by, words.trusted
    )


def _usual(unit: str) -> str:
    return "server" if unit == "site" else "site"
