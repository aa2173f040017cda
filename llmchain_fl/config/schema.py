"""Every setting of a run: its type, its bounds, its default and what it means, in this one place.

``RunConfig`` is frozen. ``config/read.py`` builds it from TOML and reports all faults at once;
``docs/configuration.md`` is made from the descriptions below (a test compares them).
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
"""What may name a stage or a site: it can stand in a path and cannot lead out of a folder."""


class Section(BaseModel):
    """A group of settings: frozen, no unknown keys, descriptions taken from the docstrings under the fields."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True, allow_inf_nan=False
    )


class ModelConfig(Section):
    """The frozen base model."""

    path: str = "minilm"
    """A known name (`minilm`, `stories`), a local directory, or a hub id such as `roberta-base`."""
    revision: str = ""
    """Hub revision (branch, tag or commit); empty for the default."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Number type of the frozen weights; the adapter, its gradients and the noise stay float32."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to compute; `auto` takes a CUDA device if there is one."""
    max_tokens: Annotated[int, Field(ge=4, le=32768)] = 64
    """Longer texts are cut to this many tokens."""
    pooling: Literal["mean", "cls"] = "mean"
    """How an encoder's token vectors become one vector (mean for sentence-transformers style encoders)."""
    threads: Annotated[int, Field(ge=0, le=256)] = 0
    """CPU threads of torch; 0 leaves torch's own choice."""
    cache_mb: Annotated[int, Field(ge=0, le=1_000_000)] = 512
    """Memory for the outputs of frozen layers below the first adapted one; 0 computes them anew each time."""


class AdapterConfig(Section):
    """The LoRA adapter."""

    rank: Annotated[int, Field(ge=1, le=1024)] = 8
    """Rank r of every adapted matrix."""
    alpha: Annotated[float, Field(gt=0, le=4096)] = 16.0
    """Scale: Delta W = alpha / r * B A."""
    targets: str | list[str] = "all-linear"
    """`all-linear`, or the names of the linear layers to adapt, such as ["query", "value"]."""
    last_layers: Annotated[int, Field(ge=0, le=1024)] = 0
    """Adapt only the last n transformer layers; 0 adapts all of them."""


class TaskConfig(Section):
    """What is learned."""

    kind: Literal["classification", "causal-lm", "plain-text"] = "classification"
    """`classification` (encoder), `causal-lm` (instruction tuning: prompt, answer) or `plain-text` (continued
    pre-training)."""
    head: Literal["label-text", "trained"] = "label-text"
    """Classification head: frozen cosine with the label's text (forgets far less) or a trained linear layer."""
    labels: str | list[str] = []
    """The public label list: a file (JSON list, JSON object label -> text, or one a line) or the list itself."""
    scale: Annotated[float, Field(gt=0, le=1000)] = 20.0
    """Label-text head: logit = scale x cosine."""


class DataConfig(Section):
    """Where records come from; a stage may name its own."""

    train: str = ""
    """Training records: a file, a directory, `hub:org/name` or `generated:NAME`; `{site}` makes it one file a site."""
    test: str = ""
    """Public held-out records, read by the server only, for the scores of the run."""
    dev: str = ""
    """Public records scored after every round instead of `test`; `test` is then scored once, at the end."""
    train_size: Annotated[int, Field(ge=0)] = 0
    """Records to take for training (or to generate); 0 takes all (generated: 2,000)."""
    test_size: Annotated[int, Field(ge=0)] = 0
    """Records to take for the test; 0 takes all (generated: 500)."""
    columns: dict[str, str] = {}
    """Which column of the file holds what: {text = "utterance", label = "intent"}."""


class SitesConfig(Section):
    """Who takes part."""

    count: Annotated[int, Field(ge=1, le=100_000)] = 2
    """Number of sites."""
    partition: Literal["iid", "dirichlet", "dirichlet-equal", "column", "natural", "shards"] = "iid"
    """How one set is dealt out to the sites (simulation only)."""
    alpha: Annotated[float, Field(gt=0, le=1e6)] = 0.5
    """`dirichlet`: each label is cut up over the sites by Dir(alpha); 0.5 is skewed, 100 nearly equal."""
    column: str = ""
    """Column that names the site for `column` and `natural` (such as `hospital`)."""
    cohort: Annotated[int, Field(ge=0)] = 0
    """Sites asked in a round; 0 asks all of them."""
    minimum: Annotated[int, Field(ge=1)] = 1
    """Fewest admitted replies that make a round; with fewer the adapter stays as it was."""
    held_out: Annotated[float, Field(ge=0, lt=0.9)] = 0.0
    """Share of each simulated site's records kept for that site's own score (0: no per-site scores)."""
    wait_seconds: Annotated[float, Field(gt=0, le=86_400)] = 120.0
    """How long the server waits for the sites to connect."""
    reply_seconds: Annotated[float, Field(gt=0, le=604_800)] = 3600.0
    """How long the server waits for the replies of a round."""


class TrainConfig(Section):
    """The local loop at a site."""

    steps: Annotated[int, Field(ge=1, le=1_000_000)] = 8
    """Optimiser steps per round."""
    sampling_rate: Annotated[float, Field(gt=0, le=1)] = 0.1
    """Poisson sampling: each record is drawn with this probability at each step."""
    batch_size: Annotated[float, Field(gt=0, le=1e6)] = 16.0
    """Expected batch size: the divisor of the summed gradient. A public constant, never a site's count."""
    micro_batch: Annotated[int, Field(ge=1, le=65_536)] = 16
    """Records per forward pass; changes memory and speed, not the result."""
    optimizer: Literal["adam", "sgd"] = "adam"
    """Local optimiser; its state does not survive the round."""
    lr: Annotated[float, Field(gt=0, le=100)] = 2e-3
    """Learning rate of the first round."""
    lr_final: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Learning rate of a stage's last round as a share of `lr` (cosine in between)."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Momentum of `sgd`, first beta of `adam`."""


class AggregationConfig(Section):
    """The server's rule."""

    rule: Literal["ffa", "fedit"] = "ffa"
    """`ffa` (A frozen, exact in the product) or `fedit` (mean of A, mean of B)."""
    max_update_norm: Annotated[float, Field(ge=0)] = 0.0
    """Refuse an update with a larger L2 norm; 0 sets no bound."""
    weights: list[Annotated[float, Field(gt=0)]] = []
    """Public weight of each site in the order of their names; empty is uniform. Never reported by a site."""


class PrivacyConfig(Section):
    """Differential privacy at the site (DP-SGD)."""

    enabled: bool = False
    """Clip each record's gradient and add noise, at the site, before anything leaves it."""
    unit: Literal["record"] = "record"
    """What is protected: one record."""
    epsilon: Annotated[float, Field(ge=0, le=100)] = 0.0
    """Budget of a site over all rounds and stages; the noise is calibrated to it. 0: give noise_multiplier instead."""
    noise_multiplier: Annotated[float, Field(ge=0, le=1000)] = 0.0
    """Noise multiplier z (noise std = z x clip_norm on the sum); 0: calibrate from epsilon."""
    delta: Annotated[float, Field(gt=0, lt=0.1)] = 1e-5
    """Delta of the guarantee."""
    clip_norm: Annotated[float, Field(gt=0, le=1e4)] = 1.0
    """Clip norm C of one record's gradient."""
    accountant: Literal["pld", "rdp"] = "pld"
    """Which accountant's epsilon is reported and enforced."""


class ContinualConfig(Section):
    """Guards against forgetting; composed in the order given."""

    guards: list[Literal["distill", "ema"]] = []
    """Any of `distill` (at the site) and `ema` (at the server); both cost no epsilon."""
    distill_weight: Annotated[float, Field(ge=0, le=1e4)] = 1.0
    """Weight of the distillation loss against the task loss."""
    distill_temperature: Annotated[float, Field(gt=0, le=100)] = 2.0
    """Temperature of the distillation."""
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.7
    """Share of the old merged adapter kept at each round."""


class StageConfig(Section):
    """One task of the stream."""

    name: Annotated[str, Field(pattern=NAME)] = "all"
    """Name of the stage, also the name of its files."""
    rounds: Annotated[int, Field(ge=1, le=100_000)] = 5
    """Rounds of this stage."""
    labels: str | list[str] = []
    """Keep only records with these labels: names, or "first:last" positions in the label list (0:26)."""
    where: dict[str, str] = {}
    """Keep only records whose columns have these values: {stage = "cards"}."""
    train: str = ""
    """Training records of this stage; empty takes `data.train`."""
    test: str = ""
    """Held-out records of this stage; empty takes `data.test`."""


class RunConfig(Section):
    """A whole run."""

    title: str = ""
    """One line that says what the run shows."""
    seed: Annotated[int, Field(ge=0, le=2**32 - 1)] = 1
    """Seed of everything but privacy: partition, adapter start, cohorts, and batches when privacy is off."""
    model: ModelConfig = ModelConfig()
    adapter: AdapterConfig = AdapterConfig()
    task: TaskConfig = TaskConfig()
    data: DataConfig = DataConfig()
    sites: SitesConfig = SitesConfig()
    train: TrainConfig = TrainConfig()
    aggregation: AggregationConfig = AggregationConfig()
    privacy: PrivacyConfig = PrivacyConfig()
    continual: ContinualConfig = ContinualConfig()
    stage: Annotated[list[StageConfig], Field(min_length=1)] = [StageConfig()]
    """The stream: one table [[stage]] for each task, in order."""

    @property
    def total_rounds(self) -> int:
        """Rounds over all stages."""
        return sum(stage.rounds for stage in self.stage)

    @model_validator(mode="after")
    def _parts_fit_together(self) -> RunConfig:
        faults = list(_cross_faults(self))
        if faults:
            raise ValueError("\n".join(faults))
        return self


def _cross_faults(run: RunConfig) -> list[str]:
    """Faults that no single value shows."""
    sites, weights, privacy, guards = run.sites, run.aggregation.weights, run.privacy, run.continual.guards
    checks: list[tuple[bool, str]] = [
        (sites.cohort > sites.count, f"sites.cohort = {sites.cohort} is more than sites.count = {sites.count}"),
        (sites.minimum > (sites.cohort or sites.count),
         f"sites.minimum = {sites.minimum} is more than the sites asked in a round"),
        (sites.partition in ("column", "natural") and not sites.column,
         f'sites.partition = "{sites.partition}" needs sites.column'),
        (bool(weights) and len(weights) != sites.count,
         f"aggregation.weights has {len(weights)} values for sites.count = {sites.count}"),
        (privacy.enabled and not privacy.epsilon and not privacy.noise_multiplier,
         "privacy.enabled needs privacy.epsilon (a budget) or privacy.noise_multiplier"),
        (run.task.kind == "classification" and not run.task.labels,
         "task.labels is empty: classification needs a public label list (never collected from the sites)"),
        (len({s.name for s in run.stage}) != len(run.stage), "two stages have the same name"),
        (len(set(guards)) != len(guards), "continual.guards names a guard twice"),
        ("distill" in guards and run.continual.distill_weight == 0,
         "continual.distill_weight = 0 makes the guard `distill` do nothing"),
    ]  # fmt: skip
    faults = [text for wrong, text in checks if wrong]
    for stage in run.stage:
        if not (stage.train or run.data.train):
            faults.append(f'stage "{stage.name}" has no training records: set data.train or the stage\'s train')
    return faults
