"""The site's own policy: where its records are, what it allows, what it shares. Written by the data holder.

The server's wishes may only be stricter. A site file (TOML), named in the SuperNode's ``--node-config 'site="..."'``::

    name = "hospital-a"
    state = "state"                     # the site's own folder: privacy ledger, sealed updates

    [data]
    train = "records/{stage}.csv"       # {stage} is the name of the stage
    columns = {text = "note", label = "department"}

    [limits]
    require_privacy = true              # refuse to train without differential privacy
    epsilon = 8.0                       # lifetime budget of these records, at ...
    delta = 1e-5                        # ... this delta
    base_models = ["minilm"]            # empty: any
    share_scores = false                # never send an accuracy (it is a function of private records)
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Any

import pydantic
from pydantic import Field

from llmchain_fl.config.read import nearest
from llmchain_fl.config.schema import NAME, Section
from llmchain_fl.errors import ConfigError, ModelError, PrivacyError
from llmchain_fl.privacy.ledger import FileLedger, Ledger, NullLedger
from llmchain_fl.work import WorkSpec


class SiteData(Section):
    """Where the records of a stage are; paths are relative to the site file."""

    train: str
    """Training records; `{stage}` stands for the name of the stage."""
    held_out: str = ""
    """Records for the site's own score; empty: none."""
    columns: dict[str, str] = Field(default_factory=dict)
    """Which column of the file holds what."""


class SiteLimits(Section):
    """What the data holder allows."""

    require_privacy: bool = True
    """Refuse to train without differential privacy."""
    epsilon: Annotated[float, Field(gt=0)] = 8.0
    """Lifetime budget of the site's records."""
    delta: Annotated[float, Field(gt=0, lt=0.1)] = 1e-5
    """The delta at which the budget is counted."""
    base_models: list[str] = Field(default_factory=list)
    """Base models the site is ready to load; empty: any."""
    share_scores: bool = False
    """Send the score on the site's held-out records to the server."""
    max_steps: Annotated[int, Field(ge=1)] = 100_000
    """Most optimiser steps in one round."""


class Site(Section):
    """One data holder."""

    name: Annotated[str, Field(pattern=NAME)]
    """Name of the site; the same for its whole life."""
    state: str = "state"
    """Folder for what must survive: the privacy ledger and sealed updates."""
    data: SiteData
    limits: SiteLimits = SiteLimits()

    def check(self, work: WorkSpec) -> None:
        """Refuse work that the policy does not allow.

        Raises:
            PrivacyError: no privacy, another delta, too many steps, or a loop that is not the one the plan pays for.
            ModelError: a base model that is not on the list.
        """
        if work.plan is None and self.limits.require_privacy:
            raise PrivacyError(
                "the site trains with differential privacy only",
                remedy="set privacy.enabled, or limits.require_privacy = false",
            )
        if work.plan is not None and work.plan.delta > self.limits.delta:
            raise PrivacyError(
                f"delta = {work.plan.delta} is above the site's {self.limits.delta}",
                remedy=f"set privacy.delta to {self.limits.delta} or less",
            )
        if work.train.steps > self.limits.max_steps:
            raise PrivacyError(
                f"{work.train.steps} steps in a round, the site allows {self.limits.max_steps}",
                remedy="lower train.steps",
            )
        plan, loop = work.plan, work.train
        if plan is not None and (plan.sampling_rate, plan.steps_per_round, plan.divisor) != (
            loop.sampling_rate,
            loop.steps,
            loop.batch_size,
        ):
            raise PrivacyError(
                "the training loop is not the one that the privacy plan accounts for",
                remedy="sampling rate, steps and divisor must be the same in both; run the same version everywhere",
            )
        self.check_base(work)

    def check_base(self, work: WorkSpec) -> None:
        """Refuse a base model that the policy does not allow.

        Raises:
            ModelError: it is not on the site's list.
        """
        if self.limits.base_models and work.base.path not in self.limits.base_models:
            raise ModelError("the site does not allow this base model", remedy="add it to limits.base_models")

    def ledger(self, work: WorkSpec) -> Ledger:
        """The site's privacy ledger, or one that records nothing for work without a plan."""
        if work.plan is None:
            return NullLedger()
        return FileLedger(
            Path(self.state),
            delta=self.limits.delta,
            unit=work.plan.unit,
            accountant="pld",
            epsilon_limit=self.limits.epsilon,
        )


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
        return (
            spec
            if not spec or Path(spec).is_absolute() or spec.startswith(("hub:", "generated:"))
            else str(base / spec)
        )

    data = site.data.model_copy(update={"train": here(site.data.train), "held_out": here(site.data.held_out)})
    return site.model_copy(update={"data": data, "state": here(site.state)})
