"""The site's own policy: where its records are, what it allows, what it shares. Written by the data holder.

The server's wishes may only be stricter. A site file (TOML), named in the SuperNode's ``--node-config 'site="..."'``::

    name = "hospital-a"
    state = "state"                     # the site's own folder: privacy ledger, sealed updates

    [data]
    name = "discharge-notes"            # which data set: its budget is kept over all runs there will ever be
    train = "records/{stage}.csv"       # {stage} is the name of the stage
    columns = {text = "note", label = "department", person = "patient_id"}

    [limits]
    require_privacy = true              # refuse to train without differential privacy
    units = ["person"]                  # protect a person with all records; "record" and "site" are weaker
    epsilon = 8.0                       # lifetime budget of each person, at ...
    delta = 1e-5                        # ... this delta
    base_models = ["minilm"]            # empty: any
    scores = "none"                     # "noised" (paid for) or "exact" (outside of epsilon)
"""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic
from pydantic import Field

from client.memory import Memory
from llmchain_fl.config.read import nearest
from llmchain_fl.config.schema import NAME, Section
from llmchain_fl.continual.guards import GUARDS
from llmchain_fl.data.source import path_of
from llmchain_fl.errors import ConfigError, ModelError, PrivacyError, WireError
from llmchain_fl.privacy.ledger import FileLedger, Ledger, NullLedger, Terms
from llmchain_fl.privacy.plan import PrivacyPlan
from llmchain_fl.work import WorkSpec

Unit = Literal["person", "record", "site"]
PERSON: Unit = "person"


class SiteData(Section):
    """Where the records of a stage are; paths are relative to the site file."""

    name: Annotated[str, Field(pattern=NAME + "|^$")] = ""
    """Which data set this is, for its whole life: its ledger goes by this name. Empty: the site's name."""
    train: str
    """Training records; `{stage}` stands for the name of the stage."""
    held_out: str = ""
    """Records for the site's own score; empty: none."""
    columns: dict[str, str] = Field(default_factory=dict)
    """Which column of the file holds what: text, label, person, ..."""
    one_record_per_person: bool = False
    """The data holder declares that no person has two records; then no column needs to name the person."""


class SiteLimits(Section):
    """What the data holder allows."""

    require_privacy: bool = True
    """Refuse to train without differential privacy."""
    units: list[Unit] = Field(default_factory=lambda: [PERSON])
    """Privacy units that the site accepts."""
    epsilon: Annotated[float, Field(gt=0)] = 8.0
    """Lifetime budget of each unit, over all rounds, stages, runs and federations."""
    delta: Annotated[float, Field(gt=0, lt=0.1)] = 1e-5
    """The delta at which the budget is counted."""
    base_models: list[str] = Field(default_factory=list)
    """Base models the site is ready to load; empty: any."""
    scores: Literal["none", "noised", "exact"] = "none"
    """Scores on the site's held-out records: never sent, sent with noise and paid for, or sent as they are."""
    max_steps: Annotated[int, Field(ge=1)] = 100_000
    """Most optimiser steps in one round."""


class Site(Section):
    """One data holder."""

    name: Annotated[str, Field(pattern=NAME)]
    """Name of the site; the same for its whole life."""
    state: str = "state"
    """Folder for what must survive: the privacy ledger and sealed updates."""
    anchor: str = ""
    """Small file that shows when `state` was set back to an older copy; best on another disk. Empty: beside `state`."""
    data: SiteData
    limits: SiteLimits = SiteLimits()

    def check(self, work: WorkSpec) -> None:
        """Refuse work that the policy does not allow.

        Raises:
            PrivacyError: no privacy, no noise, another unit or delta, too many steps, or a loop or a guard that is not
                the one the plan pays for.
            ModelError: a base model that is not on the list.
        """
        if self.limits.require_privacy and (work.plan is None or not work.plan.is_private):
            raise PrivacyError(
                "the site trains with differential privacy only",
                remedy="set privacy.enabled, or limits.require_privacy = false",
            )
        if work.plan is not None:
            self.check_plan(work.plan)
        if work.train.steps > self.limits.max_steps:
            raise PrivacyError(
                f"{work.train.steps} steps in a round, the site allows {self.limits.max_steps}",
                remedy="lower train.steps",
            )
        plan, loop = work.plan, work.train
        if (
            plan is not None
            and plan.unit != "site"
            and (plan.sampling_rate, plan.steps_per_round, plan.divisor)
            != (
                loop.sampling_rate,
                loop.steps,
                loop.batch_size,
            )
        ):
            raise PrivacyError(
                "the training loop is not the one that the privacy plan accounts for",
                remedy="sampling rate, steps and divisor must be the same in both; run the same version everywhere",
            )
        self.check_base(work)
        self.check_guards(work)

    def check_guards(self, work: WorkSpec) -> None:
        """Refuse a guard that is not known here, or that reads records again without paying for it.

        Raises:
            WireError, PrivacyError: see above.
        """
        for guard in work.guards:
            parts = GUARDS.get(guard.name)
            if parts is None:
                raise WireError("the work names an unknown guard", remedy="server and site must run the same version")
            if work.plan is not None and parts.funded is not None and not parts.funded(work.plan):
                raise PrivacyError(
                    f"the guard {guard.name} reads records again, and the privacy plan does not pay for it",
                    remedy="run the same version everywhere; or leave the guard out",
                )

    def check_plan(self, plan: PrivacyPlan) -> None:
        """Refuse a plan that protects less than the site asks for.

        Raises:
            PrivacyError: another unit, or a larger delta.
        """
        if plan.unit not in self.limits.units:
            raise PrivacyError(
                f"the privacy unit is one {plan.unit}, the site accepts {', '.join(self.limits.units) or 'none'}",
                remedy="set privacy.unit, or let the data holder decide on limits.units",
            )
        if self.data.one_record_per_person and plan.stages == "disjoint":
            raise PrivacyError(
                "stages cannot be told disjoint where the records name no person",
                remedy='name a column for the person, or set privacy.stages = "shared"',
            )
        if plan.delta > self.limits.delta:
            raise PrivacyError(
                f"delta = {plan.delta} is above the site's {self.limits.delta}",
                remedy=f"set privacy.delta to {self.limits.delta} or less",
            )

    def check_base(self, work: WorkSpec) -> None:
        """Refuse a base model that the policy does not allow.

        Raises:
            ModelError: it is not on the site's list.
        """
        if self.limits.base_models and work.base.path not in self.limits.base_models:
            raise ModelError("the site does not allow this base model", remedy="add it to limits.base_models")

    def ledger(self, work: WorkSpec) -> Ledger:
        """The privacy ledger of the site's data set, or one that records nothing for work without a plan."""
        return NullLedger() if work.plan is None else self.open_ledger(work.plan.unit)

    def open_ledger(self, unit: str) -> FileLedger:
        """The ledger on this site's disk, verified.

        Raises:
            PrivacyError: it cannot be trusted, or counts by another unit.
        """
        terms = Terms(self.data_set, unit, self.limits.delta, "pld", self.limits.epsilon)
        return FileLedger(self.ledger_folder, self.anchor_file, terms)

    def memory(self, run: str, purpose: str = "personal") -> Memory:
        """What this site keeps for itself of the run ``run``."""
        return Memory(Path(self.state), run, purpose)

    @property
    def feedback_folder(self) -> Path:
        """Where this site remembers what compression left out of its updates."""
        return Path(self.state) / ".feedback"

    @property
    def data_set(self) -> str:
        """Name of the data set whose budget is kept."""
        return self.data.name or self.name

    @property
    def ledger_folder(self) -> Path:
        """Where the ledger of the data set is."""
        return Path(self.state) / self.data_set

    @property
    def anchor_file(self) -> Path:
        """The file by which a ledger that was set back is found out."""
        state = Path(os.path.abspath(self.state))
        return Path(self.anchor) if self.anchor else state.with_name(f"{state.name}.{self.data_set}.anchor")


def read_site(path: Path) -> Site:
    """Read a site file; relative paths in it are taken from its folder.

    Raises:
        ConfigError: missing, not TOML, or faults in it (all at once).
    """
    try:
        tree: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
        site = Site.model_validate(tree)
    except FileNotFoundError:
        raise ConfigError([f"there is no site file {path}"], remedy="write one; docs/on-flower.md shows it") from None
    except OSError as error:
        raise ConfigError([f"{path} cannot be read: {error.strerror}"], remedy="give a readable site file") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError([f"{path} is not valid TOML: {error}"]) from None
    except pydantic.ValidationError as error:
        known = [*SiteData.model_fields, *SiteLimits.model_fields, *Site.model_fields]
        faults = []
        for fault in error.errors():
            key = ".".join(str(part) for part in fault["loc"])
            hint = nearest(key.rsplit(".", 1)[-1], known) if fault["type"] == "extra_forbidden" else ""
            faults.append(f"{key}: {str(fault['msg']).removeprefix('Value error, ')}{hint}")
        raise ConfigError(faults) from None
    base = path.parent

    def here(spec: str) -> str:
        return spec if not spec or path_of(spec) is None else str(base / spec)

    data = site.data.model_copy(update={"train": here(site.data.train), "held_out": here(site.data.held_out)})
    return site.model_copy(update={"data": data, "state": here(site.state), "anchor": here(site.anchor)})
