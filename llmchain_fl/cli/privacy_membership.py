"""A membership attack on the adapter of a finished simulated run: whom to compare, and what the outcome means.

Only where the sites are on this machine: the records of real sites are not, and must not be, within reach.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from llmchain_fl.core.errors import RunError
from llmchain_fl.privacy.attacks.membership import FALSE_ALARMS, Claim, Membership, infer_membership
from llmchain_fl.report import wording
from llmchain_fl.report.noised import noise_words
from llmchain_fl.report.readings import Readings
from llmchain_fl.report.spending import Spending
from llmchain_fl.run_dir import RunDir

if TYPE_CHECKING:
    from llmchain_fl.config.schema import RunConfig

Record = Mapping[str, str]
MOST = 4_000
"""Most records of each side that are looked at; of more, a fixed draw."""
HELD_OUT = "the sites held out"
PUBLIC = "of the public test set (other texts: a difference may be theirs, not the training's)"


@dataclass(frozen=True)
class Sides:
    """Records trained on and others, each with whose it is: a name, or "" for nobody's but its own."""

    members: Sequence[tuple[Record, str]]
    others: Sequence[tuple[Record, str]]
    others_are: str


@dataclass(frozen=True)
class Attack:
    """What was tried on which run, what came out, and what the run itself claims."""

    run: Path
    outcome: Membership
    others_are: str
    claim: str
    """The run's epsilon with its terms, or why there is none for this unit."""

    @property
    def broken(self) -> bool:
        """More was found than the claim allows, and nothing but the training can have told the sides apart."""
        return self.outcome.broken and self.others_are == HELD_OUT


def attack(path: Path) -> Attack:
    """Try it.

    Raises:
        RunError: no run, no sites in it, no adapter yet, or nobody to compare with.
    """
    from llmchain_fl.cli.trained import open_trained
    from llmchain_fl.config.read import read_config

    run = RunDir.open(path)
    config = read_config(run.config)
    groups = sides(run, config)
    _, task = open_trained(path)
    claim, words = claim_of(run)
    named = config.privacy.unit != "record" and any(name for _, name in (*groups.members, *groups.others))
    outcome = infer_membership(
        task,
        task.encode([record for record, _ in groups.members]),
        task.encode([record for record, _ in groups.others]),
        claim,
        people=(_names(groups.members), _names(groups.others)) if named else None,
    )
    return Attack(run.path, outcome, groups.others_are, words)


def claim_of(run: RunDir) -> tuple[Claim, str]:
    """What the run promises for one person or record, as a value and in words.

    ==========================  ============================================================
    the run                     claim
    ==========================  ============================================================
    private, person or record   the highest epsilon of its sites
    private, unit site          none: it speaks of whole sites
    not private                 none
    ==========================  ============================================================
    """
    spending = Spending.of(Readings(run.rows()), run.read_privacy())
    highest = spending.highest
    if not spending.private or highest is None:
        return Claim(math.inf, 0.0), "the run had no differential privacy: nothing bounds what a better attack finds"
    words = f"epsilon {wording.epsilon_text(highest[1].epsilon, spending.guarantee)}"
    if spending.unit == "site":
        return Claim(math.inf, 0.0), f"{words} is about whole sites, and bounds nothing for one person"
    who = noise_words(spending.noise, spending.unit).seen_by
    return Claim(highest[1].epsilon, spending.delta), f"{words} bounds every attack by {who} in this run"


def sides(run: RunDir, config: RunConfig) -> Sides:
    """Whom to compare.

    =====================================  ====================================================
    the run                                others
    =====================================  ====================================================
    its sites held records out             those
    it did not                             its public test set, which may differ by itself
    =====================================  ====================================================

    Raises:
        RunError: no sites in the run directory, or nobody to compare with.
    """
    folders = sorted(folder for folder in run.sites.glob("*") if (folder / "site.toml").is_file())
    if not folders:
        raise RunError(f"{run.path} has no sites on this machine", remedy="give the directory of a simulated run")
    stages = [stage.name for stage in config.stage]
    members = _at_most(_records(folders, [f"{stage}.jsonl" for stage in stages]))
    held_out = _at_most(_records(folders, [f"{stage}.held_out.jsonl" for stage in stages]))
    others = held_out or _at_most(_public(config))
    if not members or not others:
        raise RunError(f"{run.path} has nobody to compare with", remedy="run it with sites.held_out = 0.1")
    return Sides(members, others, HELD_OUT if held_out else PUBLIC)


def _records(folders: Sequence[Path], files: Sequence[str]) -> list[tuple[Record, str]]:
    """(record, "site/person" or "")."""
    pairs: list[tuple[Record, str]] = []
    for folder in folders:
        for file in files:
            if (folder / file).is_file():
                rows = [json.loads(line) for line in (folder / file).read_text(encoding="utf-8").splitlines()]
                pairs += [(row, f"{folder.name}/{row['person']}" if "person" in row else "") for row in rows]
    return pairs


def _public(config: RunConfig) -> list[tuple[Record, str]]:
    from llmchain_fl.data.stages import public_labels, stage_rows

    labels = list(public_labels(config))
    tested = [stage for stage in config.stage if stage.test or config.data.test]
    return [(row, "") for stage in tested for row in stage_rows(config, stage, "test", labels).records]


def _at_most(records: list[tuple[Record, str]]) -> list[tuple[Record, str]]:
    if len(records) <= MOST:
        return records
    chosen = np.sort(np.random.default_rng(0).permutation(len(records))[:MOST])
    return [records[int(number)] for number in chosen]


def _names(records: Sequence[tuple[Record, str]]) -> list[str]:
    """A name for each record; one of its own where it has none."""
    return [name or f"record {number}" for number, (_, name) in enumerate(records)]


def as_dict(tried: Attack) -> dict[str, Any]:
    """The attack as plain values; an epsilon without a bound is null."""
    out = tried.outcome
    return {
        "run": str(tried.run),
        "unit": out.unit,
        "members": out.members,
        "others": out.others,
        "others_are": tried.others_are,
        "auc": out.auc,
        "auc_error": out.auc_error,
        "found": [out.found_low, out.found, out.found_high],
        "false_alarms": [out.false_alarms, out.false_alarms_high],
        "epsilon": out.claim.epsilon if math.isfinite(out.claim.epsilon) else None,
        "ceiling": out.ceiling,
        "broken": tried.broken,
        "verdict": out.verdict,
        "claim": tried.claim,
    }


def attack_lines(tried: Attack) -> list[str]:
    """The attack in words that claim no more than it shows."""
    out = tried.outcome
    leans = out.auc - 2 * out.auc_error > 0.5
    return [
        f"Membership attack on the adapter of {tried.run}, by loss before and after training:",
        f"  {wording.count(out.members, out.unit)} trained on against {wording.count(out.others, out.unit)} "
        f"{tried.others_are}.",
        f"  AUC {out.auc:.3f} +- {2 * out.auc_error:.3f}: "
        + ("as a whole, members rank higher than chance explains." if leans else "0.5 is guessing."),
        f"  {out.verdict}",
        f"  Claim: {tried.claim}.",
        f"  At {FALSE_ALARMS:.0%} false alarms the claim allows {out.ceiling:.1%} to be found.",
    ]
