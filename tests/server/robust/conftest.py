"""A small federation for the tests of robust steps: adapters, sites, attacks, and dense products written as loops."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from llmchain_fl.aggregation import RULES
from llmchain_fl.aggregation.rule import SiteFactors, SiteShape, names_of
from llmchain_fl.robust import ROBUST, RobustSettings


class Lab:
    """Everything is a function of the generator it is given."""

    def __init__(self):
        self.scale, self.rank = 2.0, 3
        self.sizes = {"enc.0.q": (9, 7), "enc.0.v": (5, 11)}
        self.rules = RULES
        moving = [rule for rule in RULES.values() if rule.trained]  # a robust step screens changes of the product
        self.cases = [*((rule, 1) for rule in moving), (RULES["rolora"], 2)]
        self.full = SiteShape(3, 6.0)

    def adapter(self, rng, rule=None, head=True):
        """A global adapter that has learnt something, in the form the rule starts a round from."""
        arrays = {}
        for module, (d_out, d_in) in self.sizes.items():
            arrays[f"{module}.lora_A"] = rng.standard_normal((self.rank, d_in)).astype(np.float32)
            arrays[f"{module}.lora_B"] = rng.standard_normal((d_out, self.rank)).astype(np.float32)
        if head:
            arrays["head.weight"] = rng.standard_normal((3, 4)).astype(np.float32)
            arrays["head.bias"] = rng.standard_normal(3).astype(np.float32)
        if rule is None:
            return arrays
        arrays = rule.begin(arrays, self.scale, lambda module: rng.standard_normal(self.sizes[module]))
        if rule.schedule(1).keeps:  # fedsa: the global B is that of the start
            arrays |= {n: np.zeros_like(a) for n, a in arrays.items() if n.endswith("lora_B")}
        if rule.name == "flexlora":  # in the order of its singular values, as after any round
            arrays = self.play(rule, arrays, [SiteFactors(arrays, self.scale, 1.0)])
        return {
            n: rng.standard_normal(a.shape).astype(np.float32) if n.endswith("lora_R") else a for n, a in arrays.items()
        }

    def train(self, rng, rule, number, start, shape=None, weight=1.0, drift=0.1):
        """A site after local training: what it trains has moved, the rest is what it was handed."""
        shape = shape or self.full
        handed = rule.handed(start, self.scale, shape)
        moving = names_of(rule.schedule(number).trains, handed)
        moved = {n: (handed[n] + drift * rng.standard_normal(handed[n].shape)).astype(np.float32) for n in moving}
        sent = set(names_of(rule.schedule(number).up, handed))
        return SiteFactors(
            {n: moved.get(n, a) for n, a in handed.items() if n in sent or n not in moving}, shape.scale, weight
        )

    def shapes(self, rng, rule, count):
        """Alpha differs by site, rank where the rule allows."""
        ranks = [int(rng.integers(1, self.rank + 1)) if rule.any_rank else self.rank for _ in range(count)]
        return [SiteShape(rank, float(rng.uniform(0.5, 4.0)) * rank) for rank in ranks]

    def cohort(self, rng, rule, number, start, count, drift=0.1, weights=True):
        """Sites of different shape and weight."""
        return [
            self.train(rng, rule, number, start, shape, float(rng.uniform(0.5, 2)) if weights else 1.0, drift)
            for shape in self.shapes(rng, rule, count)
        ]

    def longer(self, rule, number, start, site, factor):
        """The site's move times ``factor``."""
        shape = SiteShape(self.rank_of(site), site.scale * self.rank_of(site))
        handed = rule.handed(start, self.scale, shape)
        names = [n for n in names_of(rule.schedule(number).up, handed) if n in site.arrays]
        moved = {n: (handed[n] + factor * (site.arrays[n] - handed[n])).astype(np.float32) for n in names}
        return replace(site, arrays={**site.arrays, **moved})

    def rank_of(self, site):
        """r_k."""
        return next((len(a) for n, a in site.arrays.items() if n.endswith("lora_A")), self.rank)

    def rotated(self, rng, site, spread=0.7):
        """``B M, M^-1 A`` with a random invertible M in every module, float64."""
        arrays = dict(site.arrays)
        for module in self.sizes:
            a, b = (arrays[f"{module}.{factor}"].astype(np.float64) for factor in ("lora_A", "lora_B"))
            turns = [np.linalg.qr(rng.standard_normal((len(a),) * 2)).Q for _ in "ab"]
            m = turns[0] @ np.diag(np.exp(rng.uniform(-spread, spread, len(a)))) @ turns[1]
            arrays |= {f"{module}.lora_A": np.linalg.solve(m, a), f"{module}.lora_B": b @ m}
        return replace(site, arrays=arrays)

    def play(self, rule, start, sites, number=1):
        """One round of a rule."""
        total = rule.start(start, self.scale, number)
        for site in sites:
            total.add(site)
        return total.finish()

    def screen(self, name, rule, start, sites, number=1, **settings):
        """One robust step."""
        return ROBUST[name](RobustSettings(**settings))(sites, start, self.scale, rule.schedule(number).up)

    def round(self, name, rule, start, sites, number=1, **settings):
        """A robust step, then the rule."""
        return self.play(rule, start, self.screen(name, rule, start, sites, number, **settings).sites, number)

    def products(self, arrays, scale, frozen=None):
        """Delta W of every module without the fold, and the head, dense; ``frozen`` gives factors not in arrays."""
        get = {**(frozen or {}), **arrays}
        out = {}
        for module, (d_out, d_in) in self.sizes.items():
            b, a = get[f"{module}.lora_B"].astype(np.float64), get[f"{module}.lora_A"].astype(np.float64)
            core = get.get(f"{module}.lora_R")
            inner = a if core is None else core.astype(np.float64) @ a
            out[module] = np.array([[scale * sum(b[i] * inner[:, j]) for j in range(d_in)] for i in range(d_out)])
        out |= {n: arrays[n].astype(np.float64) for n in ("head.weight", "head.bias") if n in arrays}
        return out

    def whole(self, arrays):
        """As ``products`` of the global adapter, with the fold."""
        out = self.products(arrays, self.scale)
        for module in self.sizes:
            if f"{module}.fold_A" in arrays:
                fold = (arrays[f"{module}.fold_{x}"].astype(np.float64) for x in "BA")
                out[module] = out[module] + np.matmul(*fold)
        return out

    def change(self, rule, number, start, site):
        """D of one site, as one long vector: what a robust step has to measure."""
        if rule.schedule(number).keeps:  # fedsa: no common product, what is sent stands for itself
            names = [f"{module}.lora_A" for module in self.sizes]
            rows = [self.scale * (site.arrays[n].astype(np.float64) - start[n]).ravel() for n in names]
            rows += [site.arrays[n].astype(np.float64).ravel() - start[n].ravel() for n in ("head.weight", "head.bias")]
            return np.concatenate(rows)
        handed = rule.handed(start, self.scale, SiteShape(self.rank_of(site), site.scale * self.rank_of(site)))
        mine = self.products(site.arrays, site.scale, handed)
        ours = self.products(start, self.scale)
        return np.concatenate([(mine[name] - ours[name]).ravel() for name in ours])

    def moved(self, rule, start, result):
        """What a round did to the global adapter, in the same space."""
        if rule.schedule(1).keeps:
            return self.change(rule, 1, start, SiteFactors(result, self.scale, 1.0))
        before, after = self.whole(start), self.whole(result)
        return np.concatenate([(after[name] - before[name]).ravel() for name in before])


@pytest.fixture(scope="session")
def lab() -> Lab:
    """The small federation."""
    return Lab()
