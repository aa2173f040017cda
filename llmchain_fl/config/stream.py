"""The stream of tasks: what is taught when, to whom. What follows from it: ``calendar.py``."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from llmchain_fl.config.names import known_task
from llmchain_fl.core.section import NAME, Section

JOINT = "joint"
"""What the records of all stages together are called, in files and in the privacy ledger, with `play = "joint"`."""


PROBE = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}(/[A-Za-z0-9][A-Za-z0-9._-]{0,63})?$"
"""``group`` or ``group/set``."""


class StageConfig(Section):
    """One task of the stream."""

    name: Annotated[str, Field(pattern=NAME)] = "all"
    """Name of the stage, also the name of its files."""
    rounds: Annotated[int, Field(ge=1, le=100_000)] = 5
    """Rounds of this stage."""
    task: Annotated[str, AfterValidator(lambda name: name and known_task(name))] = ""
    """Kind of task of this stage, such as `plain-text` before `causal-lm`; empty: `task.kind`. All kinds of a run share
    one adapter, so they stand on the same base and train no head (docs/pre-training.md)."""
    labels: str | list[str] = []
    """Keep only records with these labels: names, or "first:last" positions in the label list (0:26)."""
    where: dict[str, str] = {}
    """Keep only records whose columns have these values: {stage = "cards"}."""
    train: str = ""
    """Training records of this stage; empty takes `data.train`."""
    test: str = ""
    """Held-out records of this stage; empty takes `data.test`."""
    dev: str = ""
    """Public records of this stage scored after every round; empty takes `data.dev`."""
    public: str = ""
    """Public records of this stage for the guards; empty takes `continual.public`."""


class ArrivalConfig(Section):
    """When one site is there, and what it learns in which order. Whatever is left out follows the run's calendar."""

    order: list[str] = []
    """The stages this site learns, in its own order; it never sees one that is left out. Empty: as the run does."""
    offset_rounds: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    """This site begins its first stage so many rounds after the run began."""
    joins: Annotated[int, Field(ge=1, le=1_000_000)] = 1
    """First round in which this site is asked; what the run taught before, it has missed."""
    leaves: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    """Last round in which this site is asked; 0: it stays to the end."""
    relabel: dict[str, str] = {}
    """A task at odds with the others' (simulation only): this site's records of one label bear another one."""


class StreamConfig(Section):
    """How the stages follow each other, and which site is where."""

    kind: Literal["", "class-incremental", "domain-incremental", "task-incremental", "blurry"] = ""
    """What changes from stage to stage, checked against the stages: `class-incremental` (new labels),
    `domain-incremental` (the same labels, other records), `task-incremental` (the stage is known at scoring: only its
    labels can be answered), `blurry` (stages overlap by `blur`). Empty: unchecked."""
    blur: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of each stage's training records at a site that changes places with records of its other stages (simulation
    only)."""
    order: list[str] = []
    """Names of all stages in the order in which they are taught; empty: as written."""
    play: Literal["sequence", "joint", "alone"] = "sequence"
    """`sequence`; or a baseline of as many rounds: `joint` (all stages' records in every round), `alone` (the adapter
    starts anew at each stage)."""
    boundaries: Literal["calendar", "announced"] = "calendar"
    """What ends a stage: its number of rounds, or (`announced`) the operator, and its rounds are then the most."""
    probes: dict[Annotated[str, Field(pattern=PROBE)], str] = {}
    """Public records of abilities that are not taught, scored before training and at each stage's end:
    {general = "a.csv"}; several sets of one group as "general/news"."""
    arrival: dict[Annotated[str, Field(pattern=NAME)], ArrivalConfig] = {}
    """Sites with a calendar of their own, by name: [stream.arrival."site-03"]."""
