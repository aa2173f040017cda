"""Everything about a task that can be judged without a record and without the model: before anything is paid or loaded.

What is asked here is a function of the task and of the site file alone, so a refusal tells nothing about records. What
needs the model, but still no record, is asked by ``client/trial.py``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from client.site import Site
from llmchain_fl.core.adapter.value import ENDINGS as TRAINABLE
from llmchain_fl.core.adapter.value import Arrays, is_beside
from llmchain_fl.core.base_model import KNOWN, locate
from llmchain_fl.core.errors import SAME, ModelError, PrivacyError, WireError
from llmchain_fl.core.guards import SITE_GUARDS, GuardSpec, site_half
from llmchain_fl.core.messages import TrainTask
from llmchain_fl.core.methods import LOCKSTEP
from llmchain_fl.core.plugins import Named
from llmchain_fl.core.privacy.plan import MAX_CLIP_NORM, PrivacyPlan
from llmchain_fl.core.ranges import Range, range_faults
from llmchain_fl.core.section import NAME
from llmchain_fl.core.tasks.kind import TASKS
from llmchain_fl.core.work import WorkSpec

KINDS = "fiu"
"""Numpy's letters of arrays that may come: numbers, signed and unsigned; no text, no objects."""
MOST_ARRAYS, LONGEST_NAME = 200_000, 500
LARGEST_LR = 1e3
ENDINGS = (*TRAINABLE, "head")
"""What ``trains`` and ``keeps`` may name."""
BASES: Named[Callable[[Path], str]] = Named({"digest": "llmchain_fl.core.base_digest:base_digest"})
"""What a base is; imported when the site file names one by its digest."""
NUMBERS = {"round": Range(0, 1e9), "stage": Range(0, 1e6), "clip": Range(0, MAX_CLIP_NORM)}


def check_newest(number: int, newest: int) -> None:
    """Nothing is paid for a round that the run has left behind: its answer would come too late.

    ===================================================  ==========================================
    a round that was asked for now                       is
    ===================================================  ==========================================
    newer than every one that this site has paid for     played
    the newest one, paid for and not sealed              played again, for free
    an older one that was sealed here                    answered with the sealed bytes (the caller)
    an older one that was never sealed here              refused, for free
    ===================================================  ==========================================

    Raises:
        WireError: the site has paid for a later round of this run.
    """
    if number < newest:
        raise WireError(
            f"round {number} is over: this site has taken part in round {newest} of the run",
            remedy="nothing to do where a site was away for a while; else the server went back to an old checkpoint",
        )


def check_work(site: Site, work: WorkSpec) -> None:
    """Refuse work that the policy does not allow.

    Raises:
        PrivacyError: no privacy, no noise, another unit or delta, too many steps, a loop, a guard or a codec that is
            not what the plan pays for, or code of another package that the site does not name.
        ModelError: a base model that is not on the list.
        WireError: more than the site allows of anything.
    """
    limits, plan, loop = site.limits, work.plan, work.train
    if limits.require_privacy and (plan is None or not plan.is_private):
        raise PrivacyError(
            "the site trains with differential privacy only",
            remedy="set privacy.enabled, or limits.require_privacy = false",
        )
    if plan is not None:
        check_plan(site, plan)
    if site.secure.only and work.secure is None:
        raise PrivacyError(
            "the site trains only where its updates are masked", remedy="set secure.sum, or secure.only = false"
        )
    if loop.steps > limits.max_steps:
        raise PrivacyError(
            f"{loop.steps} steps in a round, the site allows {limits.max_steps}", remedy="lower train.steps"
        )
    paid_for = None if plan is None else (plan.sampling_rate, plan.steps_per_round, plan.divisor)
    if plan is not None and plan.unit != "site" and paid_for != (loop.sampling_rate, loop.steps, loop.batch_size):
        raise PrivacyError(
            "the training loop is not the one that the privacy plan accounts for",
            remedy="sampling rate, steps and divisor must be the same in both; run the same version everywhere",
        )
    if plan is not None and plan.unit == "site" and work.codec.feedback:
        raise PrivacyError(
            "what compression left out is covered by no noise with the privacy unit site",
            remedy="set compression.feedback = false",
        )
    _check_size(site, work)
    check_base(site, work)
    for guard in work.guards:
        _check_guard(site, guard, plan)


def check_plan(site: Site, plan: PrivacyPlan) -> None:
    """Refuse a plan that protects less than the site asks for.

    Raises:
        PrivacyError: another unit, a larger delta, or stages that cannot be told apart.
    """
    limits = site.limits
    if plan.unit not in limits.units:
        raise PrivacyError(
            f"the privacy unit is one {plan.unit}, the site accepts {', '.join(limits.units) or 'none'}",
            remedy="set privacy.unit, or let the data holder decide on limits.units",
        )
    if site.data.one_record_per_person and plan.stages == "disjoint":
        raise PrivacyError(
            "stages cannot be told disjoint where the records name no person",
            remedy='name a column for the person, or set privacy.stages = "shared"',
        )
    if plan.delta > limits.delta:
        raise PrivacyError(
            f"delta = {plan.delta} is above the site's {limits.delta}",
            remedy=f"set privacy.delta to {limits.delta} or less",
        )


def check_base(site: Site, work: WorkSpec) -> None:
    """Refuse a base model that the policy does not allow: by its known name, or by the digest of its folder. And a task
    of another package that the site does not name.

    A name that is neither known nor a folder would make the site call a hub: a connection that the server chose.

    Raises:
        ModelError: it is not on the site's list, or not on its disk.
        PrivacyError: see :func:`check_plugin`.
    """
    if work.task.kind not in TASKS:
        check_plugin(site, "tasks", work.task.kind)
    allowed, path = site.limits.base_models, work.base.path
    located = locate(path)
    if not located.local and not site.limits.hub:
        raise ModelError("the base model is not on this site's disk", remedy="put it there, or set limits.hub = true")
    if not allowed or (path in KNOWN and path in allowed):
        return
    if not located.local or BASES["digest"](Path(located.path)) not in allowed:
        raise ModelError("the site does not allow this base model", remedy="add it to limits.base_models")


def _check_size(site: Site, work: WorkSpec) -> None:
    limits, batches = site.limits, [dict(guard.settings).get("batch", 0) for guard in work.guards]
    public = sum(int(count) for count in batches if not isinstance(count, str))
    sizes = {
        "rank": (work.adapter.rank, limits.max_rank),
        "tokens": (work.task.max_tokens, limits.max_tokens),
        "rows a record": (work.task.windows, limits.max_windows),
        "labels": (len(work.task.labels), limits.max_labels),
        "public records a step": (public, limits.max_public),
        "stages": (max(len(work.task.candidate_labels), len(work.task.stage_labels)), limits.max_stages),
    }
    over = [f"{count} {name}, the site allows {most}" for name, (count, most) in sizes.items() if count > most]
    if over:
        raise WireError("; ".join(over), remedy="ask for less, or let the data holder decide on limits.max_*")


def _check_guard(site: Site, guard: GuardSpec, plan: PrivacyPlan | None) -> None:
    if guard.name not in SITE_GUARDS:
        check_plugin(site, "guards", guard.name)
        faults = guard.faults_within(site_half(guard.name).bounds)
        if faults:
            raise WireError("; ".join(faults), remedy=SAME)
    if plan is not None and not site_half(guard.name).funded(plan):
        raise PrivacyError(
            f"the guard {guard.name} reads records again, and the privacy plan does not pay for it",
            remedy="run the same version everywhere; or leave the guard out",
        )


def check_plugin(site: Site, group: str, name: str) -> None:
    """Refuse code of another package that the site file does not name; nothing of it has been loaded yet.

    Raises:
        PrivacyError: it is not in ``limits.plugins``.
    """
    if f"{group}:{name}" not in site.limits.plugins:
        raise PrivacyError(
            f'{group.removesuffix("s")} "{name}" is code of another package, which this site file does not allow',
            remedy=f'read that code; then write plugins = ["{group}:{name}"] under [limits] of the site file',
        )


def check_train(site: Site, task: TrainTask) -> None:
    """The part of a train task that is not the work description.

    Raises:
        WireError: names, numbers or arrays that no server of this version sends, or more than the site allows.
    """
    check_names(task.run, task.federation, (task.stage_name, *task.earlier))
    faults = range_faults(task, NUMBERS)
    if not (math.isfinite(task.lr) and 0 < task.lr <= LARGEST_LR):
        faults.append(f"lr is {task.lr!r}; it must be above 0 and at most {LARGEST_LR:g}")
    if not {*task.trains, *task.keeps} <= set(ENDINGS):
        faults.append(f"trains and keeps: some of {', '.join(ENDINGS)}")
    if len(set(task.earlier)) < len(task.earlier) or task.stage_name in task.earlier:
        faults.append("earlier: different stages, and not the present one")
    if faults:
        raise WireError("the task does not fit: " + "; ".join(faults), remedy=SAME)
    check_stages(site, task.earlier)
    check_arrays(site, task.arrays, task.guard_arrays)


def check_payload(task: TrainTask, work: WorkSpec) -> None:
    """Refuse (WireError) arrays for guards where the work has none, slots aside, and sums out of lockstep."""
    stray = [name for name in task.guard_arrays if not is_beside(name)]
    if task.sums and work.train.method != LOCKSTEP:
        raise WireError("sums by label are of rounds in lockstep", remedy=SAME)
    if stray and not work.guards:
        raise WireError(f"{len(stray)} arrays for guards, and the work has no guard", remedy=SAME)


def check_names(run: str, federation: str, stages: Sequence[str]) -> None:
    """One pattern for every name on the wire; a federation may have blanks in it, or none."""
    good = all(re.fullmatch(NAME, name) for name in (run, *stages))
    if not good or not re.fullmatch(r"[A-Za-z0-9 ._-]{0,64}", federation):
        raise WireError(
            "the name of the run, of the federation or of a stage is none",
            remedy="letters, digits, dot, dash and underscore, at most 64; " + SAME,
        )


def check_stages(site: Site, stages: Sequence[str]) -> None:
    if len(stages) > site.limits.max_stages:
        raise WireError(f"{len(stages)} stages, the site allows {site.limits.max_stages}", remedy="name fewer stages")


def check_arrays(site: Site, *groups: Mapping[str, object]) -> None:
    """Refuse arrays but of finite numbers, of a size that the site allows, under names that can be told in a log."""
    arrays = [value for group in groups for value in group.values()]
    plain = [value for value in arrays if type(value) is np.ndarray and value.dtype.kind in KINDS]
    named = all(0 < len(name) <= LONGEST_NAME and name.isprintable() for group in groups for name in group)
    if len(plain) < len(arrays) or len(arrays) > MOST_ARRAYS or not named:
        raise WireError(f"arrays of numbers with names, at most {MOST_ARRAYS}, are what a task has", remedy=SAME)
    size = sum(value.nbytes for value in plain)
    if size > site.limits.max_message_mb * 2**20:
        raise WireError(
            f"{size / 2**20:.0f} MB of arrays, the site allows {site.limits.max_message_mb}",
            remedy="use a smaller adapter, or let the data holder decide on limits.max_message_mb",
        )
    if not all(np.isfinite(value).all() for value in plain):
        raise WireError("an array of the task is not finite", remedy="lower train.lr; start from an earlier adapter")
    if any(value.dtype != np.float32 for value in groups[0].values() if isinstance(value, np.ndarray)):
        raise WireError("the adapter's arrays are float32", remedy=SAME)


def missing(names: Sequence[str], arrays: Arrays) -> None:
    """Refuse a task in which arrays that are to be trained, and do not stay here, were not sent.

    Raises:
        WireError: some are missing.
    """
    lacking = set(names) - set(arrays)
    if lacking:
        raise WireError(f"{len(lacking)} arrays to be trained were not sent", remedy=SAME)
