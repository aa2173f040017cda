"""Sums behind the update of a real model, read without noise, with a bound on what float32 rounds off.

Noise of a billionth of C: the code takes the path of full noise, and the sum can be read to a millionth of C.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from flwr.app import RecordDict
from scipy.stats import chi2

from llmchain_fl.core.adapter.value import Arrays
from llmchain_fl.core.array_record import unpack
from llmchain_fl.core.codec_spec import CodecSpec
from llmchain_fl.core.compression.update import decode
from llmchain_fl.core.methods import LOCKSTEP
from llmchain_fl.core.work import GuardSpec, TrainSpec, open_work
from llmchain_fl.guards import GUARDS
from llmchain_fl.replies import Update, read_reply
from simulations.audit.own_run import Setting
from simulations.audit.practice import Floats

CLIP, NOISE, RATE = 1e-2, 1e-9, 1e3
"""Clip norm, noise multiplier and learning rate of rounds that are read: gradients are above CLIP, and an update is so
large that float32 rounds it below a millionth of C."""
READABLE = 1e-3
"""A number that float32 may round by more than this share of C cannot be read."""


@dataclass(frozen=True)
class Sums:
    """The sum behind an update, in units of C, and how far float32 may have rounded each number of it."""

    values: Floats
    rounding: Floats

    @property
    def size(self) -> float:
        """Its norm, over what can be read."""
        return float(np.linalg.norm(self.values[self.rounding < READABLE]))


def for_people(setting: Setting, **plan: object) -> Setting:
    """The setting with everybody drawn in its only step, and almost no noise; guards stay that stand inside the loss.

    ``plan``: further changes to the privacy plan.
    """
    terms = {"sampling_rate": 1.0, "steps_per_round": 1, "divisor": 1.0, "clip_norm": CLIP, "noise_multiplier": NOISE}
    changed = replace(setting.plan, **{**terms, **plan})  # type: ignore[arg-type]
    train = replace(
        setting.work.train,
        sampling_rate=changed.sampling_rate,
        steps=changed.steps_per_round,
        batch_size=changed.divisor,
        optimizer="sgd",
        momentum=0.0,
        proximal=0.0,
    )
    guards = tuple(guard for guard in setting.work.guards if _inside(guard))
    return replace(setting, work=replace(setting.work, plan=changed, train=train, guards=guards, codec=CodecSpec()))


def _inside(guard: GuardSpec) -> bool:
    return GUARDS[guard.name].given(guard).claim != "post-processing"


def vector(reply: RecordDict, setting: Setting) -> Floats | None:
    """The update of a reply as one vector, decoded; None for a refusal."""
    answer = read_reply(reply)
    if not isinstance(answer, Update):
        return None
    work, arrays = setting.work, dict(answer.arrays)
    if work.codec.name != "none":
        shapes = open_work(work.resident, work.task)[0].shapes
        arrays = dict(decode(arrays, {name: shapes[name] for name in sorted(arrays)}, work.codec))
    return joined(arrays)


def joined(arrays: Mapping[str, object]) -> Floats:
    """Named arrays as one vector, by name, float64."""
    return np.concatenate([np.asarray(arrays[name], dtype=np.float64).reshape(-1) for name in sorted(arrays)])


def sums_of(reply: RecordDict, setting: Setting, sent: Arrays) -> Sums | None:
    """What stands behind the reply to a task of :func:`for_people` with ``sent`` as its arrays; None for a refusal."""
    update = vector(reply, setting)
    if update is None:
        return None
    rounding = np.spacing(np.abs(update).astype(np.float32))
    if is_direct(setting.work.train):
        return Sums(-update / CLIP, rounding.astype(np.float64) / CLIP)
    start = joined({name: sent[name] for name in unpack(reply.array_records["arrays"])})
    rounding += np.spacing(np.abs(start + update).astype(np.float32))
    return Sums(-update / (RATE * CLIP), rounding.astype(np.float64) / (RATE * CLIP))


def is_direct(train: TrainSpec) -> bool:
    """Whether what a site sends is the mean gradient itself, and no step of its optimiser."""
    return train.method == LOCKSTEP


def apart(one: Sums | None, *others: Sums | None) -> float:
    """|one - others| in units of C, less what rounding and noise explain; NaN if a site sent nothing."""
    given = [other for other in others if other is not None]
    if one is None or len(given) < len(others):
        return np.nan
    rounding, gap = one.rounding.copy(), one.values.copy()
    for other in given:
        rounding += other.rounding
        gap -= other.values
    seen = rounding < READABLE
    explained = np.linalg.norm(rounding[seen]) + noise_norm(int(seen.sum()), 1 + len(given))
    return max(0.0, float(np.linalg.norm(gap[seen]) - explained))


def noise_norm(size: int, rounds: int = 1) -> float:
    """What the norm of the noise of so many rounds exceeds with probability 1e-9, in units of C."""
    return NOISE * float(np.sqrt(rounds * chi2.isf(1e-9, max(1, size))))
