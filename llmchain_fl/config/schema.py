"""Every setting of a run: its type, its bounds, its default and what it means, in this one place.

``RunConfig`` is frozen. ``config/read.py`` builds it from TOML and reports all faults at once;
``docs/configuration.md`` is made from the descriptions below (a test compares them).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from llmchain_fl.config.aggregation import AggregationConfig
from llmchain_fl.config.compression import CompressionConfig
from llmchain_fl.config.continual import ContinualConfig
from llmchain_fl.config.names import known_task, one_of
from llmchain_fl.config.secure import SecureConfig
from llmchain_fl.config.stream import StageConfig, StreamConfig
from llmchain_fl.config.usual import with_usual
from llmchain_fl.core.adapter.variants import LORA, VARIANTS
from llmchain_fl.core.section import NAME, Section

PISSA = "pissa"
"""``adapter.start``: no folder, but the singular directions of the base."""
__all__ = ["AggregationConfig", "NAME", "ContinualConfig", "PISSA", "RunConfig", "Section", "StageConfig"]


class ModelConfig(Section):
    """The frozen base model."""

    path: str = "minilm"
    """A known name (`minilm`, `e5`, `smollm2`, `stories`; docs/bases.md), a local directory, or a hub id such as
    `roberta-base`."""
    revision: str = ""
    """Hub revision (branch, tag or commit); empty for the default."""
    dtype: Literal["float32", "bfloat16", "float16", "int8", "nf4"] = "float32"
    """Number type of the frozen weights; the adapter, its gradients and the noise stay float32. `int8` and `nf4`
    (8 and 4 bits) need the extra `few-bits`."""
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
    """What is trained of the base: a LoRA adapter, or another variant of few numbers."""

    variant: Annotated[str, one_of(lambda: list(VARIANTS))] = LORA
    """`lora`; `ia3`, `layer-norm`, `bias`, `miss` and `dora-magnitude` train one kind of array a layer, which is
    averaged as it is (docs/variants.md)."""
    rank: Annotated[int, Field(ge=1, le=1024)] = 8
    """Rank r of every adapted matrix (`lora`, `miss`)."""
    alpha: Annotated[float, Field(gt=0, le=4096)] = 16.0
    """Scale: Delta W = alpha / r * B A."""
    scaling: Literal["standard", "rslora"] = "standard"
    """`rslora`: Delta W = alpha / sqrt(r) * B A, so that a large rank learns as fast as a small one (rsLoRA, arXiv
    2312.03732). Written into alpha, so that every reader of the adapter agrees."""
    targets: str | list[str] = "all-linear"
    """`all-linear`, or the names of the linear layers to adapt, such as ["query", "value"]. `layer-norm`: all norms, or
    their names."""
    last_layers: Annotated[int, Field(ge=0, le=1024)] = 0
    """Adapt only the last n transformer layers; 0 adapts all of them."""
    start: str = ""
    """Folder of an earlier adapter of the same shape to go on from (stages/*/adapter, or one restored); `pissa`: the
    largest r singular directions of each matrix, taken out of the base and trained (arXiv 2404.02948); empty: anew."""
    site_ranks: list[Annotated[int, Field(ge=1, le=1024)]] = []
    """Rank of each site in the order of their names, at most `rank`; empty: `rank` everywhere."""
    site_alphas: list[Annotated[float, Field(gt=0, le=4096)]] = []
    """Alpha of each site in the order of their names; empty: every site has the scale alpha / r of the adapter."""

    def folded(self, alpha: float, rank: int) -> float:
        """The alpha' with alpha' / r = alpha / r, or alpha / sqrt(r) with the scaling of rsLoRA."""
        return alpha * math.sqrt(rank) if self.scaling == "rslora" else alpha


class TaskConfig(Section):
    """What is learned."""

    kind: Annotated[str, AfterValidator(known_task)] = "classification"
    """With an encoder `classification`, `pair-classification`, `multi-label`, `token-classification`, `relation`,
    `span-qa`, `span-qa-or-none`, `regression`, `ranking`, `masked-lm` (continued pre-training); with a decoder
    `causal-lm` (instruction tuning: prompt, answer), `plain-text` (continued pre-training), `dialogue`, `label-words`;
    with a decoder or an encoder-decoder `summarisation`, `translation`; or the name of another package's task
    (docs/tasks.md)."""
    head: Literal["label-text", "trained"] = "label-text"
    """Head of a classifier of texts or pairs: frozen cosine with the label's text (forgets far less) or a trained
    linear layer. Other kinds with an encoder always have a trained one."""
    labels: str | list[str] | dict[str, str] = []
    """The public label list: a file (JSON list, JSON object label -> text, or one a line), the list itself, or a table
    label -> text."""
    scale: Annotated[float, Field(gt=0, le=1000)] = 20.0
    """Label-text head: logit = scale x cosine."""
    features: Annotated[int, Field(ge=0, le=8192)] = 0
    """Fixed random features in front of a trained head, beside the base's own; 0: none. For heads in closed form."""
    windows: Annotated[int, Field(ge=0, le=1024)] = 0
    """Most rows of `model.max_tokens` tokens that a long text is read in; what is beyond them is cut, and the run says
    of how many public test texts before round 1. All rows of a record count as one record, in the loss, in the score
    and in what privacy bounds. 0: as the kind of task has it (docs/tasks.md)."""
    low: Annotated[float, Field(ge=-1e9, le=1e9)] = 0.0
    """`regression`: the smallest number there is, a public constant; a smaller one counts as this."""
    high: Annotated[float, Field(ge=-1e9, le=1e9)] = 1.0
    """`regression`: the largest number there is."""
    template: Literal["base", "plain"] = "base"
    """How a conversation is written out for a decoder (`dialogue`, `label-words`, `summarisation`, `translation`): by
    the base's own chat template, or, for a base without one, `plain`: "User: ...", "Assistant: ..." on lines of their
    own."""
    instruction: Annotated[str, Field(max_length=2000)] = ""
    """`label-words`, `summarisation`, `translation`: what stands before each text: with a decoder a line of its own, as
    in "Translate into Chinese."; with an encoder-decoder a prefix, as in "summarize:"."""


class DataConfig(Section):
    """Where records come from; a stage may name its own."""

    train: str = ""
    """Training records: a file, a directory, `hub:org/name` or `generated:NAME`, with `[a:b]` only those
    rows; `{site}` makes it one file a site."""
    test: str = ""
    """Public held-out records, read by the server only, for the scores of the run."""
    dev: str = ""
    """Public records scored after every round instead of `test`; `test` is then scored once, at the end."""
    train_size: Annotated[int, Field(ge=0)] = 0
    """Records to take for training (or to generate); 0 takes all (generated: 2,000)."""
    test_size: Annotated[int, Field(ge=0)] = 0
    """Records to take for the test; 0 takes all (generated: 500)."""
    test_every: Annotated[int, Field(ge=1, le=100_000)] = 1
    """Score the adapter after every so many rounds, and always when a stage ends."""
    columns: dict[str, str] = {}
    """Which column of the file holds what: {text = "utterance", label = "intent", person = "patient_id"}."""
    one_record_per_person: bool = False
    """Declares that no person has two records, so that no column needs to name the person."""
    baseline: Annotated[int, Field(ge=0, le=100_000)] = 1500
    """Simulation: most training records from which a closed-form head on the frozen base is fitted, as a line to
    compare with (all sites together, and each alone); 0: none."""
    made_up_persons: Annotated[int, Field(ge=0, le=10_000)] = 0
    """Simulation of a set without persons: hand each site's records to made-up persons with 1 to n records each."""


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
    """Share of each simulated site's records (with privacy: persons) kept for that site's own score; 0: none."""
    excluded: list[str] = []
    """Sites that are not asked any more, by name: they get no task and no adapter."""
    quarantine_after: Annotated[int, Field(ge=0, le=1000)] = 3
    """Set a site aside after so many failed rounds in a row (0: never); it is tried again later."""
    quarantine_rounds: Annotated[int, Field(ge=1, le=100_000)] = 4
    """Rounds for which a site is set aside the first time; twice as many each time its trial fails."""
    hostile: Annotated[float, Field(ge=0, le=0.5)] = 0.0
    """Research, in-process simulation only: share of the sites that attack, drawn from the seed; 0: none."""
    attack: Literal["sign-flip", "scale", "noise", "backdoor", "free-rider", "rotate", "malformed"] = "sign-flip"
    """What hostile sites send for their update."""
    attack_strength: Annotated[float, Field(gt=0, le=1e6)] = 1.0
    """Factor of the honest update; a `backdoor` replaces the model at sites / hostile sites."""
    wait_seconds: Annotated[float, Field(gt=0, le=86_400)] = 120.0
    """How long the server waits for the sites to connect."""
    reply_seconds: Annotated[float, Field(gt=0, le=604_800)] = 3600.0
    """How long the server waits for the replies of a round."""


class TrainConfig(Section):
    """How a round learns."""

    method: Literal["local", "lockstep", "closed-form"] = "local"
    """`local`: sites take `steps` steps of their own and the server averages what came of them. `lockstep`: sites send
    one gradient a round and the server takes the step, with `optimizer`, `lr` and `momentum`: as if all records were in
    one place. `closed-form`: sites send sums, one round a stage, and the server computes the head that fits all records
    of all stages so far best; no privacy but that of the masked sum. Where a classification names no way to train:
    `lockstep` with privacy, `closed-form` for a class-incremental stream without (docs/operating-points.md)."""
    steps: Annotated[int, Field(ge=1, le=1_000_000)] = 8
    """Optimiser steps per round; 1 where sites take none of their own."""
    sampling_rate: Annotated[float, Field(gt=0, le=1)] = 0.1
    """Poisson sampling: each record (with privacy: each person) is drawn with this probability at each step."""
    batch_size: Annotated[float, Field(gt=0, le=1e6)] = 16.0
    """Expected batch size (with privacy: persons): divisor of the summed gradient. A public constant, never a count."""
    micro_batch: Annotated[int, Field(ge=1, le=65_536)] = 16
    """Records per forward pass; changes memory and speed, not the result."""
    optimizer: Literal["adam", "sgd"] = "adam"
    """Optimiser; at a site (`local`) its state does not survive the round, at the server (`lockstep`) not the stage."""
    lr: Annotated[float, Field(gt=0, le=100)] = 2e-3
    """Learning rate of the first round."""
    lr_final: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Learning rate of a stage's last round as a share of `lr` (cosine in between)."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Momentum of `sgd`, first beta of `adam`."""
    average: Annotated[float, Field(ge=0, le=1)] = 0.0
    """`lockstep`: a stage leaves the mean of its adapters over this share of its rounds, the last ones; 0: the last
    adapter. Post-processing: it costs no epsilon."""
    sums: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """`lockstep` under guard `mask`: in this share of a stage's rounds, the first ones, sites sum up each label's
    records, and the head's rows of the stage start from these sums; 0: from the label texts. With privacy a stream of
    new labels gets 0.25 where it names no way to train (docs/operating-points.md)."""
    proximal: Annotated[float, Field(ge=0, le=1e6)] = 0.0
    """FedProx mu: keeps a site near the global adapter (mu/2 ||theta - theta_global||^2); 0 switches it off."""

    @model_validator(mode="before")
    @classmethod
    def _one_step(cls, value: Any) -> Any:
        """Where the server takes the step of the round, one is what there is, unless another number is given."""
        if isinstance(value, Mapping) and value.get("method", "local") != "local":
            return {"steps": 1, **value}
        return value


class PrivacyConfig(Section):
    """Differential privacy: at the site (DP-SGD), or, with unit `site`, at the server."""

    enabled: bool = False
    """Clip what one unit adds and noise the sum, at the site before anything leaves it (unit `site`: at the server)."""
    unit: Literal["person", "record", "site"] = "person"
    """What is protected: a `person` with all records at a site, one `record`, or a whole `site` (trusts the server)."""
    records_per_person: Annotated[int, Field(ge=1, le=10_000)] = 8
    """Most records of one person in one step; of more, so many are drawn secretly. Bounds work, not privacy."""
    stages: Literal["shared", "disjoint"] = "shared"
    """`shared`: persons may be in several stages, all rounds add up. `disjoint`: a person takes part in the first stage
    that meets it and is left out of the others, enforced at the site; then only the largest stage counts."""
    noise: Literal["site", "sum"] = "site"
    """`site`: each site adds all of the noise (unit `site`: the server does). `sum`: the sites share it, so that their
    sum has it once; needs secure.sum, and rounds of one step (train.method = "lockstep") or the unit `site`."""
    epsilon: Annotated[float, Field(ge=0, le=100)] = 0.0
    """Budget of a site over all rounds and stages; the noise is calibrated to it. 0: give noise_multiplier instead."""
    noise_multiplier: Annotated[float, Field(ge=0, le=1000)] = 0.0
    """Noise multiplier z (noise std = z x clip_norm on the sum); 0: calibrate from epsilon."""
    delta: Annotated[float, Field(gt=0, lt=0.1)] = 1e-5
    """Delta of the guarantee; less than 1 / (10 x number of persons)."""
    clip_norm: Annotated[float, Field(gt=0, le=1e4)] = 1.0
    """Clip norm C of what one unit adds to a step (unit `site`: of a site's update of a round)."""
    clip_quantile: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Unit `site`: let C follow this quantile of the sites' norms, privately (0.5 is usual); 0 keeps C fixed."""
    accountant: Literal["pld", "rdp"] = "pld"
    """Which accountant's epsilon is reported and enforced."""


class RunConfig(Section):
    """A whole run; each setting by itself. What does not go together: ``config/cross.py``."""

    title: str = ""
    """One line that says what the run shows."""
    federation: Annotated[str, Field(pattern=r"^[A-Za-z0-9 ._-]{0,64}$")] = ""
    """Who asks: written into every site's privacy ledger beside what it spends."""
    seed: Annotated[int, Field(ge=0, le=2**32 - 1)] = 1
    """Seed of everything but privacy: partition, adapter start, cohorts, and batches when privacy is off."""
    model: ModelConfig = ModelConfig()
    adapter: AdapterConfig = AdapterConfig()
    task: TaskConfig = TaskConfig()
    data: DataConfig = DataConfig()
    sites: SitesConfig = SitesConfig()
    train: TrainConfig = TrainConfig()
    aggregation: AggregationConfig = AggregationConfig()
    compression: CompressionConfig = CompressionConfig()
    privacy: PrivacyConfig = PrivacyConfig()
    secure: SecureConfig = SecureConfig()
    stream: StreamConfig = StreamConfig()
    continual: ContinualConfig = ContinualConfig()
    stage: Annotated[list[StageConfig], Field(min_length=1, max_length=1000)] = [StageConfig()]
    """The stream: one table [[stage]] for each task, in order."""

    @model_validator(mode="before")
    @classmethod
    def _usual(cls, value: Any) -> Any:
        """Where nothing else is named, the way to train that measured best."""
        return with_usual(value) if isinstance(value, Mapping) else value

    @property
    def survivors(self) -> int:
        """Fewest sites of an opened sum: as told; else all, of more than 3 one in ten (at least one) may be missing."""
        cohort = self.sites.cohort or self.sites.count
        return self.secure.survivors or (cohort - max(1, cohort // 10) if cohort > 3 else cohort)

    @property
    def total_rounds(self) -> int:
        """Rounds over all stages."""
        return sum(stage.rounds for stage in self.stage)
