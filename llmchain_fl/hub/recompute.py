"""What of a card can be computed anew from the files beside it, and is.

========================  =============================================================================================
check                     computed
========================  =============================================================================================
card                      the whole card, from the files that it names; no field may differ
page                      README.md, from the card
epsilon                   of every site, by this project's accountant, from the plan and the rounds that it took part in
epsilon over rounds       the last epsilon of each site in the measurements is that of privacy.json
accuracy                  each task's accuracy, from the recalls of its labels and their numbers of records
R                         the scores after a stage are those measured in that stage's last round
means of R                forgetting and the like, from R; those that the run wrote down
intervals                 the margin of every share, from the share and its number of records
rounds                    the round of the lineage is the last one measured
========================  =============================================================================================

What cannot be: that the measurements were taken as they say, on those records. For that there is the audit log.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from llmchain_fl.core.errors import LlmchainError, PrivacyError
from llmchain_fl.core.privacy.accounting import groups_epsilon
from llmchain_fl.core.privacy.charges import score_event, training_event
from llmchain_fl.core.privacy.events import Event
from llmchain_fl.core.privacy.groups import HELD_OUT
from llmchain_fl.core.privacy.plan import PrivacyPlan
from llmchain_fl.evaluation.margin import share_half_width
from llmchain_fl.hub import layout
from llmchain_fl.hub.card import read_card
from llmchain_fl.hub.card_build import build_card
from llmchain_fl.hub.card_page import page
from llmchain_fl.hub.card_sources import Named, Row, Sources
from llmchain_fl.hub.door import VerifiedAdapter
from llmchain_fl.hub.refused import refuse
from llmchain_fl.hub.sealing import MADE_BY
from llmchain_fl.metrics_file import ALL_SITES, R_MATRIX
from llmchain_fl.privacy.plan_file import saved_plan

NEAR = 1e-9
PLAN = tuple(PrivacyPlan.__dataclass_fields__)


@dataclass(frozen=True)
class Check:
    """One line of the table. ``holds`` None: it could not be computed, ``words`` says why."""

    name: str
    holds: bool | None
    words: str


def recomputed(adapter: VerifiedAdapter) -> list[Check]:
    """Every check of the table, in its order.

    Raises:
        HubError: form, size, card: a file cannot be read at all.
    """
    sources = Sources(adapter.files)
    checks: Mapping[str, Callable[[Sources], Check]] = {
        "card": lambda sources: _card(adapter),
        "page": lambda sources: _page(adapter),
        "epsilon": _epsilon,
        "epsilon over rounds": _last_epsilons,
        "accuracy": _accuracy,
        "R": _cells,
        "means of R": _means,
        "intervals": _intervals,
        "rounds": _rounds,
    }
    try:
        return [check(sources) for check in checks.values()]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        kind = type(error).__name__
    raise refuse("form", f"the evidence is not what this project writes ({kind})")


def check_card(adapter: VerifiedAdapter) -> list[Check]:
    """As :func:`recomputed`; the first check that does not hold is refused.

    Raises:
        HubError: card.
    """
    checks = recomputed(adapter)
    for check in checks:
        if check.holds is False:
            raise refuse("card", f"{check.name}: {check.words}")
    return checks


def named_of(adapter: VerifiedAdapter) -> Named:
    """What the signed manifest says beside the files."""
    signed = adapter.manifest
    return Named(signed.name, signed.version, signed.made_by, signed.base_name, signed.base_digest, signed.parent)


def _card(adapter: VerifiedAdapter) -> Check:
    card = read_card(adapter.files[layout.CARD]).model_dump(mode="json")
    made = build_card(adapter.files, named_of(adapter)).model_dump(mode="json")
    wrong = next(_different(made, card, "card"), "")
    return Check("card", not wrong, wrong or "every field follows from the file that it names")


def _different(made: Any, card: Any, at: str) -> Iterator[str]:
    """Where two trees differ."""
    if isinstance(made, dict) and isinstance(card, dict) and set(made) == set(card):
        for key in made:
            yield from _different(made[key], card[key], f"{at}.{key}")
    elif isinstance(made, list) and isinstance(card, list) and len(made) == len(card):
        for place, pair in enumerate(zip(made, card, strict=True)):
            yield from _different(*pair, f"{at}.{place}")
    elif isinstance(made, float) and isinstance(card, float | int) and not isinstance(card, bool):
        if not math.isclose(made, card, rel_tol=NEAR, abs_tol=NEAR):
            yield f"{at} is {card!r}, its source gives {made!r}"
    elif made != card or type(made) is not type(card):
        yield f"{at} is {str(card)[:80]!r}, its source gives {str(made)[:80]!r}"


def _page(adapter: VerifiedAdapter) -> Check:
    """Another version of this project may have written the page in other words, but no HTML."""
    readme = adapter.files[layout.README]
    if page(read_card(adapter.files[layout.CARD])).encode() == readme:
        return Check("page", True, "README.md is the card")
    if adapter.manifest.made_by == MADE_BY or re.search(rb"<[a-zA-Z/!?]", readme):
        return Check("page", False, "README.md is not what the card gives")
    return Check("page", None, f"written by {adapter.manifest.made_by}; it holds no HTML")


def _epsilon(sources: Sources) -> Check:
    privacy = sources.tree(layout.PRIVACY)
    if not privacy.get("private"):
        return Check("epsilon", None, "the run was not private")
    if privacy.get("earlier_plans"):
        return Check("epsilon", None, "the run went on under another plan: the sites' ledgers tell")
    try:
        plan = saved_plan({key: privacy[key] for key in PLAN})
        for site, spent in privacy["sites"].items():
            events = {group: [_event(plan, group, count)] for group, count in spent["groups"].items() if count}
            for key, accountant in (("epsilon", privacy["accountant"]), ("epsilon_rdp", "rdp")):
                found_anew = groups_epsilon(events, plan.delta, accountant)
                if not math.isclose(found_anew, spent[key], rel_tol=1e-6):
                    words = f"{key} of {site} is {spent[key]:.6g}; its rounds cost {found_anew:.6g}"
                    return Check("epsilon", False, words)
    except PrivacyError as error:
        return Check("epsilon", False, error.what.splitlines()[0])
    return Check("epsilon", True, f"of {len(privacy['sites'])} sites, by {privacy['accountant']} and by rdp")


def _event(plan: PrivacyPlan, group: str, count: int) -> Event:
    return score_event(plan, count) if group == HELD_OUT else training_event(plan, count)


def _last_epsilons(sources: Sources) -> Check:
    rows = [row for row in sources.rows if row["metric"] == "epsilon"]
    last = {row["site"]: row["value"] for row in rows if row.get("site")}
    highest = [row["value"] for row in rows if row.get("scope") == ALL_SITES][-1:]
    sites = sources.tree(layout.PRIVACY).get("sites", {})
    if not rows and not sites:
        return Check("epsilon over rounds", None, "the run was not private")
    wrong = [site for site, value in last.items() if not _near(sites.get(site, {}).get("epsilon"), value)]
    lacking = [site for site, spent in sites.items() if spent["epsilon"] and site not in last and not highest]
    if highest and not _near(max(spent["epsilon"] for spent in sites.values()), highest[0]):
        wrong.append("the site that has spent most")
    words = f"{(wrong + lacking)[0]} has another epsilon in the measurements" if wrong + lacking else "as measured"
    return Check("epsilon over rounds", not wrong and not lacking, words)


def _accuracy(sources: Sources) -> Check:
    rows = _scores(sources)
    recalls_of: dict[tuple[str, int], list[Row]] = {}
    for row in sources.rows:
        if row["metric"] == "recall" and row.get("scope", "global") == "global":
            recalls_of.setdefault((str(row.get("task")), row["round"]), []).append(row)
    seen = 0
    for (task, number), recalls in recalls_of.items():
        whole = rows.get((task, number, "accuracy"))
        records = sum(row["n"] for row in recalls)
        if whole is None or whole.get("n") != records:
            continue
        seen += 1
        right = sum(round(row["value"] * row["n"]) for row in recalls)
        if abs(right / records - whole["value"]) > 0.5 / records:
            words = f"{task}, round {number}: {whole['value']:.4f}; its labels give {right / records:.4f}"
            return Check("accuracy", False, words)
    return Check(
        "accuracy", True if seen else None, f"of {seen} tasks and rounds, from recalls" if seen else "no recalls"
    )


def _cells(sources: Sources) -> Check:
    rows, seen = _scores(sources), 0
    for row in sources.rows:
        if row["metric"] != R_MATRIX or row.get("scope", "global") != "global":
            continue
        same = [value for (task, number, _), value in rows.items() if (task, number) == (row.get("task"), row["round"])]
        if not same:
            continue
        seen += 1
        if not any(_near(one["value"], row["value"]) for one in same):
            return Check("R", False, f"{row.get('task')} after round {row['round']} was measured otherwise")
    return Check("R", True if seen else None, f"{seen} cells are measured scores" if seen else "no cells")


def _means(sources: Sources) -> Check:
    from llmchain_fl.continual.metrics import METRICS, r_matrix, summary

    tasks = [one["name"] for one in sources.tree(layout.SETTINGS)["stages"]]
    cells = [row for row in sources.rows if row["metric"] == R_MATRIX and row.get("scope", "global") == "global"]
    wrote = [row for row in sources.rows if row["metric"] in METRICS and row.get("scope") == "run"]
    tasks = [name for name in tasks if any(row.get("task") == name for row in cells)]
    if not cells or not wrote or not tasks:
        return Check("means of R", None, "none was written")
    try:
        for row in wrote:
            made = summary(r_matrix(cells, tasks), int(row["stage"])).get(row["metric"], math.nan)
            if not _near(made, row["value"]):
                words = f"{row['metric']} after stage {row['stage']} is {row['value']}; R gives {made}"
                return Check("means of R", False, words)
    except LlmchainError as error:
        return Check("means of R", False, error.what)
    return Check("means of R", True, f"{len(wrote)} numbers")


def _intervals(sources: Sources) -> Check:
    rows = [row for row in sources.rows if row.get("unit") == "share" and row.get("half_width") and not row.get("of")]
    rows = [row for row in rows if row.get("n") and "change_" not in row["metric"] and row.get("scope") == "global"]
    for row in rows:
        made = share_half_width(row["value"], row["n"])
        if not made <= row["half_width"] + NEAR:
            return Check("intervals", False, f"{row['metric']} of {row.get('task')}, round {row['round']}: {made:.4f}")
    return Check("intervals", True if rows else None, f"{len(rows)} margins")


def _rounds(sources: Sources) -> Check:
    number = sources.tree(layout.LINEAGE)["round"]
    scored = [row["round"] for row in sources.rows if row.get("scope", "global") == "global"]
    last = max(scored, default=0)
    return Check("rounds", number == last, f"round {number}; the last one measured is {last}")


def _scores(sources: Sources) -> dict[tuple[str, int, str], Row]:
    rows = (row for row in sources.rows if row.get("scope", "global") == "global" and "label" not in row)
    return {(str(row.get("task")), row["round"], row["metric"]): row for row in rows if row["metric"] != R_MATRIX}


def _near(one: Any, other: Any) -> bool:
    if not isinstance(one, int | float) or not isinstance(other, int | float):
        return False
    return (math.isnan(one) and math.isnan(other)) or math.isclose(one, other, rel_tol=1e-9, abs_tol=1e-12)
