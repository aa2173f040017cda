"""Is the noise of a run's own settings what its accountant assumes? Read from what a whole site sends.

At a site without records an update is noise alone, whatever the optimiser: with g_t = sigma n_t, t = 0 .. T - 1, and
sigma = z C / divisor,

    sgd, momentum m:  theta_0 - theta_T = lr sum_t c_t g_t        c_t = (1 - m^(T - t)) / (1 - m)
    adam, beta m:     theta_0 - theta_T = lr / e sum_t c_t g_t    c_t = sum_(s >= t) (1 - m) m^(s - t) / (1 - m^(s + 1))

the second as long as sigma is far below Adam's constant e = 1e-8 (its step is linear in g then; here sigma / e = 1e-4).
So each number of the update is N(0, (lr sigma |c|)^2), exactly, and independent of all others. In lockstep T = 1, and
what is sent is g_0 itself: lr and the constant e stand outside. Guards pull after the noise by public values; they stay
on, so weak that they move less than a part in 1,000 of it. A third site has one person, who adds at most T C / |noise|
to it. What a codec left out is added back from the site's own memory.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from flwr.app import RecordDict
from scipy.stats import binom
from scipy.stats import t as student

from llmchain_fl.core.adapter.value import Arrays
from llmchain_fl.core.privacy.plan import MAX_CLIP_NORM, MIN_CLIP_NORM
from llmchain_fl.core.work import GuardSpec, TrainSpec
from llmchain_fl.privacy.audit import noise_law
from llmchain_fl.privacy.audit.conformance import never
from llmchain_fl.privacy.audit.finding import ALPHA, Finding, judge
from simulations.audit.effort import Effort
from simulations.audit.own_codec import ideal_energies
from simulations.audit.own_guards import QUIET
from simulations.audit.own_reading import is_direct, joined, vector
from simulations.audit.own_run import FIRST, SECOND, Setting
from simulations.audit.own_site import OwnSite, made_up_rows
from simulations.audit.practice import Floats
from simulations.audit.replies import Seen
from simulations.audit.seeds import same_seeds

ADAM = 1e-8
"""The constant e of torch's Adam."""
READ = 2.0**-6
"""About the size of an update's numbers that is aimed at: float32 rounds it far below the noise."""
SHARE = ALPHA / 11
"""Of the false alarm rate of a kind of check: there are eleven settings of our own."""
WEAK = 1e-6
"""A guard's strength, in units of sigma."""
MOMENTUM = 0.25
"""Most momentum: with more the last steps of a round would weigh too little to be seen."""


@dataclass(frozen=True)
class Reading:
    """A setting whose noise can be read: ``std`` is that of each number of its update."""

    setting: Setting
    lr: float
    std: float


def readable(setting: Setting) -> Reading:
    """The same settings, with clip norm, learning rate and strength of guards such that the noise can be read."""
    plan, train = setting.plan, setting.work.train
    train = replace(train, momentum=min(train.momentum, MOMENTUM))
    direct = is_direct(train)
    adam = train.optimizer == "adam" and not direct
    pulled = bool(setting.work.guards) or train.proximal > 0
    sigma = 1e-12 if adam else READ * (1e5 if pulled else 1.0)
    clip = sigma * plan.divisor / plan.noise_multiplier
    clip = min(max(clip, MIN_CLIP_NORM), MAX_CLIP_NORM)
    sigma = clip * plan.noise_multiplier / plan.divisor
    lr = 1e-5 if pulled and not (adam or direct) else 1.0
    if adam:
        lr = min(READ * ADAM / sigma, 1e3)
    work = replace(
        setting.work,
        plan=replace(plan, clip_norm=clip),
        train=replace(train, proximal=min(train.proximal, WEAK * sigma)),
        guards=tuple(_weak(guard, WEAK * sigma) for guard in setting.work.guards),
    )
    std = lr * sigma * float(np.linalg.norm(coefficients(train))) / (ADAM if adam else 1.0)
    return Reading(replace(setting, work=work), lr, std)


def _weak(guard: GuardSpec, most: float) -> GuardSpec:
    settings = tuple((key, min(float(v), most) if key in QUIET else v) for key, v in guard.settings)
    return GuardSpec(guard.name, settings)


def coefficients(train: TrainSpec) -> Floats:
    """c_t of the module, [T]."""
    steps, m = train.steps, train.momentum
    count = np.arange(steps)
    if train.optimizer == "sgd":
        return np.asarray((1 - m ** (steps - count)) / (1 - m), dtype=np.float64)
    weights = (1 - m) * m ** np.maximum(count[:, None] - count[None, :], 0) / (1 - m ** (count[:, None] + 1))
    return np.asarray(np.where(count[:, None] >= count[None, :], weights, 0.0).sum(axis=0), dtype=np.float64)


def own_noise(folder: Path, effort: Effort, setting: Setting) -> list[Finding]:
    """Two rounds of a site without records, one of a site with one person; all seeds set alike."""
    reading, seen = readable(setting), Seen()
    name = setting.name
    nobody, somebody = OwnSite(folder / "nobody", seen), OwnSite(folder / "somebody", seen, name="other")
    rows = made_up_rows(setting.work.task, ["ann"])
    for site, records in ((nobody, []), (somebody, rows)):
        site.write(FIRST, records).write(SECOND, records)
    rounds = []
    for site, number in ((nobody, 1), (nobody, 2), (somebody, 1)):
        before = _left_out(site, reading.setting)
        with same_seeds():
            reply = site.train(reading.setting.task(number, reading.lr))
        rounds.append(_noise(site, reading, reply, before))
    findings = [seen.finding(name)]
    missing = sum(one is None for one in rounds)
    noises = [one for one in rounds if one is not None]
    if missing:
        return [*findings, never(f"rounds that gave no update ({name})", missing, "Of three; nothing hinders them.")]
    return [*findings, *_law(reading, noises)]


def _law(reading: Reading, rounds: list[Floats]) -> list[Finding]:
    name, setting = reading.setting.name, reading.setting
    empty, alone = np.concatenate(rounds[:2]), rounds[2]
    reuse = noise_law.noise_reuse(rounds, SHARE, f"noise re-use ({name})")
    if setting.work.codec.name != "none" and not setting.work.codec.feedback:
        return [_through_codec(reading, rounds), reuse]
    findings = [
        noise_law.noise_size(empty, reading.std, SHARE / 2, f"noise size ({name})"),
        _wider(noise_law.noise_size(alone, reading.std, SHARE / 2, f"noise size beside a person ({name})"), setting),
        replace(noise_law.noise_shape(empty, reading.std, SHARE), name=f"noise shape ({name})"),
        replace(noise_law.noise_repeats(empty, reading.std, SHARE), name=f"noise repeats ({name})"),
        reuse,
    ]
    return findings + (_on_grid(reading, rounds) if setting.zero else [])


def _wider(finding: Finding, setting: Setting) -> Finding:
    """One person adds at most T C to noise of size z C sqrt(T P)."""
    plan, (low, high) = setting.plan, finding.allowed
    size = plan.steps_per_round / (plan.noise_multiplier**2 * max(1, setting.resident().trained_size))
    return judge(finding.name, finding.measured, (low * (1 - size**0.5), high * (1 + size**0.5)), finding.words)


def _on_grid(reading: Reading, rounds: list[Floats]) -> list[Finding]:
    """Whether each number is a sum of multiples of the public grid (``SecureNoise.added``), and of no coarser one.

    The adapter starts at zero, the divisor is a power of 2 and the learning rate 1, so nothing is rounded on the way.
    Digits below the grid could carry anything; a grid that follows the sum would tell its size. Half of all multiples
    are odd ones.
    """
    plan, name = reading.setting.plan, reading.setting.name
    step = 2.0 ** (np.floor(np.log2(plan.noise_std)) - 16) / plan.divisor
    whole = np.concatenate(rounds) / step
    if not np.isfinite(whole).all():
        return [never(f"digits below the grid ({name})", whole.size, "The update is not finite.")]
    off, odd = int((whole != np.round(whole)).sum()), int((np.round(whole) % 2).sum())
    low, high = (float(binom.ppf(level, whole.size, 0.5)) for level in (SHARE / 2, 1 - SHARE / 2))
    return [
        never(f"digits below the grid ({name})", off, f"Numbers of {whole.size} that do not lie on the public grid."),
        judge(f"last digits of the grid ({name})", odd, (low, high), f"Odd multiples among {whole.size} numbers."),
    ]


def _through_codec(reading: Reading, rounds: list[Floats]) -> Finding:
    """Energy of what is sent against that of ideal noise through the same codec, by a prediction interval of it."""
    ideal = ideal_energies(reading.setting, reading.std)
    wide = float(student.isf(SHARE / (2 * len(rounds)), ideal.size - 1)) * float(ideal.std(ddof=1))
    low, high = (ideal.mean() + sign * wide * (1 + 1 / ideal.size) ** 0.5 for sign in (-1, 1))
    measured = [float(np.linalg.norm(one) / (reading.std * one.size**0.5)) for one in rounds]
    worst = max(measured, key=lambda value: abs(value - ideal.mean()))
    words = "Size of what is sent, as a share of the noise before it was compressed; that of ideal noise lies here."
    return judge(f"noise size ({reading.setting.name})", worst, (float(low), float(high)), words)


def _left_out(site: OwnSite, setting: Setting) -> Arrays:
    """What compression has left out so far, as the site remembers it."""
    memory = site.site.memory("gate", "feedback").read() if setting.work.codec.feedback else None
    return {} if memory is None else memory.after


def _noise(site: OwnSite, reading: Reading, reply: RecordDict, before: Arrays) -> Floats | None:
    """The noise behind a reply: what was sent, and with feedback what is left out now and was not before."""
    sent = vector(reply, reading.setting)
    if sent is None or not reading.setting.work.codec.feedback:
        return sent
    after = joined(_left_out(site, reading.setting))
    return sent + after - (joined(before) if before else 0.0)
