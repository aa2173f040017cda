"""What a candidate must show: a TOML file with public probes and bounds.

::

    worse = 0.02                 # most that the main score may fall on a set, with chance `level`
    epsilon = 8.0                # most that its card may promise, at `delta`, for `unit`

    [[probe]]
    name = "cards"
    data = "probes/cards.csv"
    old = true                   # a stage that was taught before
"""

from __future__ import annotations

from pathlib import Path

import pydantic

from llmchain_fl.core.errors import ConfigError
from llmchain_fl.core.toml_file import read_toml


class Probe(pydantic.BaseModel):
    """One fixed public set."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)

    name: str = pydantic.Field(min_length=1, max_length=100)
    data: str = pydantic.Field(min_length=1)
    """A file, a folder or ``generated:NAME``, as ``data.test``."""
    old: bool = False
    """Whether it is of a stage that was taught before: the bound is then ``worse_old``."""
    size: int = pydantic.Field(1000, ge=20, le=100_000)
    """At most so many records, drawn by the policy's seed."""
    columns: dict[str, str] = {}
    where: dict[str, str] = {}
    """Only records with these values."""


class Policy(pydantic.BaseModel):
    """Bounds, each on how much worse the candidate may be than the current adapter, in points of a share."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)

    worse: float = pydantic.Field(0.03, ge=0, le=1)
    worse_old: float = pydantic.Field(0.03, ge=0, le=1)
    calibration: float | None = pydantic.Field(0.05, ge=0, le=1)
    robustness: float | None = pydantic.Field(0.05, ge=0, le=1)
    bias: float | None = pydantic.Field(0.05, ge=0, le=1)
    epsilon: float | None = pydantic.Field(None, gt=0)
    delta: float = pydantic.Field(1e-5, gt=0, lt=1)
    unit: str = "person"
    membership: bool = False
    """Whether what ``privacy audit --json`` printed must be there, with every check passed and no attack beyond it."""
    level: float = pydantic.Field(0.95, gt=0.5, lt=1)
    draws: int = pydantic.Field(1000, ge=200, le=100_000)
    seed: int = pydantic.Field(1, ge=0)
    fewest: int = pydantic.Field(200, ge=20)
    """Records below which a set shows nothing."""
    probe: list[Probe] = pydantic.Field(min_length=1)


def read_policy(path: Path) -> Policy:
    """A policy file.

    Raises:
        ConfigError: it is missing, no TOML, or has faults: all are named.
    """
    try:
        policy = Policy.model_validate(read_toml(path, "policy file"))
    except pydantic.ValidationError as error:
        faults = [f"{path}: {'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()]
        raise ConfigError(faults, remedy="docs/promote.md lists the settings") from None
    names = [probe.name for probe in policy.probe]
    if len(set(names)) < len(names):
        raise ConfigError([f"{path}: two probes have one name"], remedy="give each a name of its own")
    return policy
