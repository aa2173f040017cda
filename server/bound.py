r"""How long an honest site's update can be: the bound on a reply that no operator had to think of.

``aggregation.max_update_norm`` above 0 is the bound. Where it is 0, the bound U on the L2 norm of what a site sends
(P numbers, T steps of learning rate lr, clip norm C, noise multiplier z, divisor b, momentum m) is

===========================================  ====================================================================
run                                          U
===========================================  ====================================================================
unit person or record, ``adam``              lr sqrt(P) sum_{t=1..T} r_t                                    (adam)
... ``sgd``, no guard adds to the gradient   lr T / (1 - m) (MOST_UNITS C + z C (sqrt(P) + x) / b),          (sgd)
                                             x = sqrt(2 ln(T / CHANCE))
... in lockstep: a gradient, no step         (sgd) with lr = 1, m = 0
a guard pulls towards something it was sent  ``DEFAULT``
what compression left out is sent later      ``DEFAULT``
unit site                                    ``DEFAULT``: the server clips every update itself
no privacy                                   ``DEFAULT``
sums for a head in closed form               ``LARGEST``: they grow with the records
===========================================  ====================================================================

(adam) With m_t = (1 - b1) sum_i b1^(t-i) g_i and v_t = (1 - b2) sum_i b2^(t-i) g_i^2 in each coordinate,
Cauchy-Schwarz gives |m_t| <= (1 - b1) sqrt(sum_{j<t} (b1^2 / b2)^j) sqrt(v_t / (1 - b2)), so that

    |m^_t| / sqrt(v^_t)  <=  r_t  =  (1 - b1) / (1 - b1^t)  sqrt((1 - b2^t) / (1 - b2))  sqrt(sum_{j<t} (b1^2 / b2)^j)

for *any* gradients (reached by g_i ~ (b1 / b2)^(t-i)): whatever is clipped, noised, or added by a guard. r_1 = 1.

(sgd) The velocity of torch, u_t = m u_(t-1) + g_t, adds each g at most 1 / (1 - m) times. A noise of P numbers of
standard deviation s is longer than s (sqrt(P) + x) with probability at most exp(-x^2 / 2) = CHANCE / T (a norm is a
1-Lipschitz function of them). The clipped sum of N units is at most N C long, and how many a site draws is its own
secret: MOST_UNITS stands for N / b, a thousand times what the run expects of a site.

Then: a codec may lengthen what it rounds (``_lengthens``); proximal steps shorten; a guard's projection shortens; each
step in float32 rounds by 2^-24 of what it adds to, so ``ROUNDING T |start|`` is added, and ``SLACK`` on top. U is never
above ``LARGEST`` (``sound.py``). Honest sites pass (adam) always and (sgd) with probability 1 - CHANCE a round.

A bound is no judge: it keeps out what breaks a sum. Poison below it is the business of a robust step.

==============================  =================================
edge case                       result
==============================  =================================
one step of adam                lr sqrt(P)
momentum 0                      (sgd) lr T (...); (adam) b1 = 0
z = 0                           (sgd) the clipped part alone
b1^2 > b2, very many steps      r_t overflows: ``LARGEST``
lr 0                            ``LEAST``: above 0
==============================  =================================
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from llmchain_fl.aggregation.admission import update_norm
from llmchain_fl.config.schema import RunConfig
from llmchain_fl.core.adapter.value import Arrays
from llmchain_fl.core.codec_spec import CodecSpec
from llmchain_fl.core.guards import site_half
from llmchain_fl.core.methods import CLOSED_FORM, LOCKSTEP
from llmchain_fl.core.privacy.plan import PrivacyPlan
from llmchain_fl.core.work import TrainSpec, WorkSpec
from server.sound import LARGEST

Floats = NDArray[np.float64]
DEFAULT = 1e6
"""Without a bound that follows from the plan."""
LEAST = 1e-12
MOST_UNITS = 1_000.0
CHANCE = 1e-9
BETA2 = 0.999
"""Of the sites' Adam (``client/local.py``); its first beta is ``train.momentum``."""
ROUNDING = 2.0**-22
SLACK = 1.01


def update_bound(work: WorkSpec, numbers: int, lr: float, start: float) -> float:
    """U for one site; see the head of this file.

    Args:
        work: what the site was told.
        numbers: P, how many numbers it sends.
        lr: of this round.
        start: L2 norm of what it starts from, of the arrays that it sends.
    """
    plan, adds, train = work.plan, {site_half(guard.name).adds for guard in work.guards}, work.train
    if train.method == CLOSED_FORM:
        return LARGEST
    if plan is None or plan.unit == "site" or "pull" in adds or work.codec.feedback:
        return DEFAULT
    sends_gradient = train.method == LOCKSTEP
    if train.optimizer == "adam" and not sends_gradient:
        moved = lr * math.sqrt(numbers) * adam_reach(train.steps, train.momentum)
    elif "gradient" in adds:
        return DEFAULT
    else:
        moved = (
            sgd_reach(replace(train, momentum=0.0), plan, numbers, 1.0)
            if sends_gradient
            else sgd_reach(train, plan, numbers, lr)
        )
    rounded = ROUNDING * train.steps * (start + moved)
    bound = (moved + rounded) * SLACK * _lengthens(work.codec)
    return min(max(bound, LEAST), LARGEST) if math.isfinite(bound) else LARGEST


def longest(config: RunConfig, work: WorkSpec, sent: Mapping[str, tuple[int, ...]], handed: Arrays, lr: float) -> float:
    """What is admitted of a site that sends arrays of the shapes ``sent``: as the operator says, else U."""
    given = config.aggregation.max_update_norm
    if given:
        return min(given, LARGEST)
    numbers = sum(math.prod(shape) for shape in sent.values())
    return update_bound(work, numbers, lr, update_norm({name: handed[name] for name in sent if name in handed}))


@functools.lru_cache(maxsize=8)
def adam_reach(steps: int, beta1: float, beta2: float = BETA2) -> float:
    """``sum_{t=1..T} r_t``: how far T steps of Adam can move one number, in learning rates; inf where it overflows."""
    t = np.arange(1, steps + 1, dtype=np.float64)
    ratio = beta1**2 / beta2
    with np.errstate(over="ignore", invalid="ignore"):
        powers = t if ratio == 1.0 else _less_one(ratio, t) / (1.0 - ratio)
        each = (1.0 - beta1) / _less_one(beta1, t) * np.sqrt(_less_one(beta2, t) / (1.0 - beta2)) * np.sqrt(powers)
        return float(each.sum())


def _less_one(
    base: float, t: np.ndarray[tuple[int], np.dtype[np.float64]]
) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """``1 - base^t``, also where base is near 1."""
    return -np.expm1(t * math.log(base)) if base > 0 else np.ones_like(t)


def sgd_reach(train: TrainSpec, plan: PrivacyPlan, numbers: int, lr: float) -> float:
    """(sgd) of the head of this file."""
    noise = plan.noise_std * (math.sqrt(numbers) + math.sqrt(2.0 * math.log(train.steps / CHANCE)))
    return lr * train.steps / (1.0 - train.momentum) * (MOST_UNITS * plan.clip_norm + noise / train.batch_size)


def _lengthens(codec: CodecSpec) -> float:
    """How much longer rounding can make an update.

    int8, int4: each number moves by less than a step s <= (1 + 2^-7) max|block| / L, so a block x of n numbers by less
    than sqrt(n) (1 + 2^-7) / L ||x||. bf16: by less than 2^-7 of itself. top-k keeps some numbers and sends these as
    int4. L: 127 and 7.
    """
    levels = {"int8": 127.0, "int4": 7.0, "top-k": 7.0}.get(codec.name)
    if levels is not None:
        return 1.0 + math.sqrt(codec.block) * (1.0 + 2.0**-7) / levels
    return 1.0 + 2.0**-7 if codec.name == "bf16" else 1.0
