"""A loop's file: the settings of its run, as ``simulate`` takes them, and a table ``[loop]`` beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Annotated, Any

import pydantic
from pydantic import Field

from llmchain_fl.config.read import apply_settings, build
from llmchain_fl.config.schema import RunConfig
from llmchain_fl.core.errors import ConfigError
from llmchain_fl.core.section import NAME, Section, faults_in
from llmchain_fl.core.toml_file import read_toml
from llmchain_fl.core.words import nearest
from llmchain_fl.hub.evidence import Statement
from llmchain_fl.promote.policy import Policy, Probe


class LoopConfig(Section):
    """What is done with what the run has learned."""

    name: Annotated[str, Field(pattern=NAME)]
    """Of the adapter, in the hub."""
    users: str
    """What users write, with the label that a clerk knows to be right: a file, or `generated:NAME`."""
    count: Annotated[int, Field(ge=1, le=100_000)] = 200
    """Users whose messages a clerk looks at."""
    held_out: Annotated[int, Field(ge=20, le=100_000)] = 480
    """Messages of others that nobody corrects, by which the turn is judged (split `test`)."""
    passages: str = ""
    """Public passages that are shown where an answer abstains: a file, or `generated:bank-passages`; empty: none."""
    accuracy: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Of the answers that do not abstain, on public records: `abstain_below` follows from it; 0: none abstains."""
    stage: Annotated[str, Field(pattern=NAME)] = "feedback"
    """Name of the stage that learns from the corrections."""
    rounds: Annotated[int, Field(ge=1, le=100_000)] = 10
    """Of that stage."""
    lr: Annotated[float, Field(gt=0, le=100)] = 0.01
    """Learning rate of that stage."""
    most: Annotated[int, Field(ge=1)] = 20
    """Records of one person in the edition at most."""
    policy: dict[str, Any]
    """Public probes and bounds of the gate, as in a policy file (docs/promote.md)."""
    statement: dict[str, Any]
    """What the card says of data and use (docs/hub.md)."""


class Loop(pydantic.BaseModel):
    """A whole file, checked. ``config``: of the run up to its first adapter."""

    model_config = pydantic.ConfigDict(frozen=True, arbitrary_types_allowed=True)

    config: RunConfig
    loop: LoopConfig
    policy: Policy
    statement: Statement


def shipped() -> dict[str, Path]:
    """Name -> file."""
    folder = Path(str(resources.files("llmchain_fl"))) / "loop"
    return {path.stem: path for path in sorted(folder.glob("*.toml"))}


def loop_tree(name: str, given: Sequence[str] = ()) -> dict[str, Any]:
    """A shipped file, or one by its path, with ``--set`` values laid over it.

    Raises:
        ConfigError: there is none of this name.
    """
    known, path = shipped(), Path(name)
    if name not in known and path.suffix != ".toml":
        raise ConfigError(
            [f"there is no loop {name!r}{nearest(name, list(known))}"],
            remedy=f"choose one of {', '.join(known)}, or give the path of a .toml file",
        )
    return apply_settings(read_toml(known.get(name, path)), list(given))


def read_loop(name: str, given: Sequence[str] = ()) -> Loop:
    """A turn of corrections.

    Raises:
        ConfigError: there is none of this name, or it has faults.
    """
    return _checked(loop_tree(name, given), name)


def _checked(tree: Mapping[str, Any], name: str) -> Loop:
    rest = {key: value for key, value in tree.items() if key != "loop"}
    config = build(rest)
    try:
        loop = LoopConfig.model_validate(tree.get("loop", {}))
        policy, statement = Policy.model_validate(loop.policy), Statement.model_validate(loop.statement)
    except pydantic.ValidationError as error:
        raise ConfigError(faults_in(error, (LoopConfig, Policy, Probe, Statement), f"{name}: [loop]")) from None
    faults = [f'loop.stage: there is a stage "{loop.stage}" already'] * any(s.name == loop.stage for s in config.stage)
    if config.task.kind != "classification":
        faults.append(f"task.kind is {config.task.kind}: the clerks of a loop correct labels of texts")
    if faults:
        raise ConfigError(faults)
    return Loop(config=config, loop=loop, policy=policy, statement=statement)
