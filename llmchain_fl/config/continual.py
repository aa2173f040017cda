"""Guards against forgetting and their settings: `continual.<guard>_<setting>`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from llmchain_fl.core.section import Section

GuardName = Literal[
    "agem", "anchor", "distill", "ema", "gate", "merge", "olora", "rehearsal", "replay", "route", "slots"
]  # fmt: skip


class ContinualConfig(Section):
    """Guards against forgetting; composed in the order given."""

    guards: list[GuardName] = []
    """Guards in the order in which they act; docs/continual.md says what each does. Only `rehearsal` is charged."""
    public: str = ""
    """Public records that guards may look at (any source; a stage may name its own). Never the test set."""
    public_stages: bool = True
    """Whether `continual.public` holds records of the stages; false: general records, of no stage, without labels."""
    public_size: Annotated[int, Field(ge=1, le=10_000)] = 300
    """Most public records taken, shared out over the stages."""
    agem_strength: Annotated[float, Field(ge=0, le=1)] = 1.0
    """`agem`: share of a step against the public reference that is taken out."""
    agem_batch: Annotated[int, Field(ge=1, le=10_000)] = 16
    """`agem`: public records a step is compared with."""
    anchor_strength: Annotated[float, Field(ge=0, le=1e9)] = 1.0
    """`anchor`: weight of the squared distance to the Delta W of the last stage."""
    anchor_importance: Literal["plain", "public", "path"] = "plain"
    """`anchor`: what matters: all alike, what public records need, or what the released rounds have moved."""
    anchor_decay: Annotated[float, Field(ge=0, le=1)] = 1.0
    """`anchor`: share of the old importance that is kept at each stage."""
    distill_weight: Annotated[float, Field(ge=0, le=1e4)] = 1.0
    """Weight of the distillation loss against the task loss."""
    distill_temperature: Annotated[float, Field(gt=0, le=100)] = 2.0
    """Temperature of the distillation."""
    distill_data: Literal["batch", "public"] = "batch"
    """`distill` on the records of the step (shares their clip norm), or on public records (after the noise)."""
    distill_batch: Annotated[int, Field(ge=1, le=10_000)] = 16
    """`distill` on public records: how many in a step."""
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.7
    """Share of the old merged adapter kept at each round."""
    gate_drop: Annotated[float, Field(ge=0, le=100)] = 0.02
    """`gate`: how far a public score of an earlier stage may fall below its best."""
    merge_kind: Literal["wise", "mean", "root", "ties"] = "wise"
    """`merge`: share of the new stage is `merge_beta`, 1 / t, 1 / sqrt t, or TIES with `merge_beta` as weights."""
    merge_beta: Annotated[float, Field(ge=0, le=1)] = 0.5
    """`merge`: share of the new stage (`wise`, `ties`)."""
    merge_density: Annotated[float, Field(gt=0, le=1)] = 0.5
    """`merge` with `ties`: share of the entries of each change that is kept."""
    olora_strength: Annotated[float, Field(ge=0, le=1e9)] = 1.0
    """`olora`: weight of the overlap of A with the rows of earlier stages."""
    olora_form: Literal["squared", "l1"] = "squared"
    """`olora`: the paper's squared overlap, or the released code's sum of absolute values."""
    olora_rows: Annotated[int, Field(ge=1, le=4096)] = 64
    """`olora`: most rows of earlier stages kept for each layer."""
    rehearsal_keep: Annotated[float, Field(gt=0, le=1)] = 0.1
    """`rehearsal`: share of each earlier stage's persons that a site goes on training on. The ledger is charged."""
    replay_data: Literal["public", "generated"] = "public"
    """`replay` on public records of the ended stages, or on texts that the served adapter writes (plain text only)."""
    replay_weight: Annotated[float, Field(ge=0, le=1e4)] = 1.0
    """`replay`: weight of their loss against the task's."""
    replay_batch: Annotated[int, Field(ge=1, le=10_000)] = 16
    """`replay`: how many in a step."""
    replay_size: Annotated[int, Field(ge=1, le=5_000)] = 200
    """`replay` on generated texts: how many are written at the end of each stage."""
    route_tau: Annotated[float, Field(ge=1e-4, le=10)] = 0.05
    """`route`: temperature of the choice among slots; small is a hard choice."""
    slots_share: Annotated[float, Field(ge=0, le=0.5)] = 0.02
    """`slots`: share of each layer's input directions that public records of a stage protect; 0: earlier A's only."""
