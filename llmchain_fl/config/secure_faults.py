"""What does not go with secure sums, and with noise that the sites share."""

from __future__ import annotations

from collections.abc import Iterator

from llmchain_fl.config.schema import RunConfig
from llmchain_fl.core.methods import LOCKSTEP


def secure_faults(run: RunConfig) -> list[str]:
    """One line each; none where neither is asked for. What depends on rule and guards: ``planning/compatible.py``."""
    return [*_sum_faults(run), *_noise_faults(run)]


def _sum_faults(run: RunConfig) -> Iterator[str]:
    secure, sites, adapter = run.secure, run.sites, run.adapter
    cohort = sites.cohort or sites.count
    if not secure.sum:
        return
    if cohort < 3:
        yield f"secure.sum needs 3 sites in a round, there are {cohort}: of two, each knows the other's part of the sum"
    elif not 2 <= run.survivors <= cohort:
        yield f"secure.survivors = {secure.survivors} is not among the 2 to {cohort} sites asked in a round"
    if 0 < sites.cohort < sites.count:
        yield "secure.sum needs sites.cohort = 0: sums over changing sites could be taken from each other"
    if run.compression.up != "none":
        yield 'secure.sum needs compression.up = "none": what a codec writes does not add up'
    if run.aggregation.weights:
        yield "secure.sum needs aggregation.weights = []: every site counts once"
    if len(set(adapter.site_ranks)) > 1 or len(set(adapter.site_alphas)) > 1:
        yield "secure.sum needs sites of one shape: leave adapter.site_ranks and adapter.site_alphas empty"
    if run.privacy.enabled and run.privacy.unit == "site" and run.privacy.noise == "site":
        yield (
            'secure.sum with privacy.unit = "site" needs privacy.noise = "sum": the server can put no noise on an '
            "update that it does not see"
        )


def _noise_faults(run: RunConfig) -> Iterator[str]:
    privacy = run.privacy
    if not privacy.enabled or privacy.noise != "sum":
        return
    if not run.secure.sum:
        yield (
            'privacy.noise = "sum" needs secure.sum = true: a part of the noise protects nobody whose update is seen '
            "alone"
        )
    if privacy.unit != "site" and run.train.method != LOCKSTEP:
        yield (
            'privacy.noise = "sum" needs train.method = "lockstep": in several steps of a site a person moves the '
            "later ones through the earlier, and the others' noise comes only at the end"
        )
    if privacy.clip_quantile > 0:
        yield 'privacy.clip_quantile needs privacy.noise = "site": the norms of the updates are not seen'
