"""What the data holder allows: one table of caps, each with a default that an ordinary task stays below."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import Field, field_validator

from llmchain_fl.core.base_model import KNOWN
from llmchain_fl.core.section import Section

Unit = Literal["person", "record", "site"]
PERSON: Unit = "person"
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


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
    """Base models the site is ready to load: known names (they are pinned by their package) and `sha256:...` of a
    model's folder, which `llmchain-fl digest FOLDER` prints; empty: any."""
    plugins: list[str] = Field(default_factory=list)
    """Code of other packages that a task may make this site run, each as `GROUP:NAME`, such as `guards:pull`; empty:
    none. It runs beside the records and outside the gate: read it first."""
    hub: bool = False
    """Whether a task may make this site ask a model hub on the network; false: only models on its own disk."""
    scores: Literal["none", "noised", "exact"] = "none"
    """Scores on the site's held-out records: never sent, sent with noise and paid for, or sent as they are."""
    stop_unusable: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Refuse further rounds of a run in which more than this share of the drawn units could not be computed; 0: log it
    only. A refusal tells the server so much, outside of epsilon."""
    max_steps: Annotated[int, Field(ge=1)] = 100_000
    """Most optimiser steps in one round."""
    max_rank: Annotated[int, Field(ge=1)] = 256
    """Largest rank of an adapted matrix."""
    max_trained: Annotated[int, Field(ge=1)] = 50_000_000
    """Most trained numbers."""
    max_tokens: Annotated[int, Field(ge=4)] = 4096
    """Longest text of a record, in tokens."""
    max_windows: Annotated[int, Field(ge=1, le=1024)] = 64
    """Most rows of so many tokens that a long record is read in."""
    max_labels: Annotated[int, Field(ge=1)] = 10_000
    """Longest label list."""
    max_message_mb: Annotated[int, Field(ge=1)] = 1024
    """Most memory for the arrays of one task, those of guards included."""
    max_public: Annotated[int, Field(ge=1)] = 1024
    """Most public records that guards may pass through the model in one step."""
    max_stages: Annotated[int, Field(ge=1)] = 1000
    """Most stages named in one task (to rehearse, to score)."""
    memory_mb: Annotated[int, Field(ge=0)] = 0
    """Memory that a task may need by an estimate made before it is loaded; 0: what the machine has."""

    @field_validator("base_models")
    @classmethod
    def _pinned(cls, names: list[str]) -> list[str]:
        wrong = [name for name in names if name not in KNOWN and not DIGEST.fullmatch(name)]
        if wrong:
            raise ValueError(
                f"{', '.join(map(repr, wrong))}: give a known name ({', '.join(sorted(KNOWN))}) or sha256: and 64 "
                "digits; llmchain-fl digest FOLDER prints those of a model's folder"
            )
        return names


class SiteCompute(Section):
    """How the site computes; nothing of it changes a result."""

    threads: Annotated[int, Field(ge=0, le=256)] = 0
    """CPU threads; 0: what the task wishes, at most what the machine has."""
    micro_batch: Annotated[int, Field(ge=0, le=65_536)] = 0
    """Most records in one pass; 0: what the task wishes."""
    rows: Annotated[int, Field(ge=0, le=1024)] = 0
    """Records in one pass of a private step; 0: 6 on a CPU, 16 on a GPU."""
