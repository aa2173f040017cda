"""How far one person moves a sum of integers, whatever her records are: by Python's own integers, without rounding."""

from __future__ import annotations

import math
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch

from llmchain_fl.core.privacy import integers
from llmchain_fl.core.privacy.integers import Integers
from llmchain_fl.privacy.audit.conformance import never
from llmchain_fl.privacy.audit.finding import Finding, judge
from simulations.audit.effort import Effort


def people(width: int, bits: int, effort: Effort) -> Iterator[tuple[str, torch.Tensor]]:
    """(what, a person's gradient): the sum of 1 to 64 records of hers, ordinary and hostile ones."""
    draw = torch.Generator().manual_seed(7)
    unit = 2.0**-bits
    for records in (1, 2, 3, 8, 64):
        yield f"{records} records", torch.randn(records, width, generator=draw).sum(dim=0)
        yield f"{records} times one record", torch.full((width,), 0.3) * records
    level = integers.length_before(width, bits) / math.sqrt(width)
    for entry in (0.5, 0.5001, 1.5, level, math.floor(level) + 0.51, math.floor(level) - 0.49):
        yield f"all entries {entry:g} units", torch.full((width,), entry * unit)
    for size in (1e-45, 1e-30, 1e10, 3e38):
        yield f"entries of {size:g}", torch.full((width,), size)
    for entry in (1.0, 1.0 - unit / 3, -1.0 - unit / 3):
        yield f"one entry of {entry:g}", torch.eye(1, width)[0] * entry
    for bad in (math.nan, math.inf, -math.inf):
        yield f"an entry of {bad}", torch.eye(1, width)[0] * bad
    for _ in range(effort.hostile):
        yield "random", torch.randn(width, generator=draw) * 10.0 ** float(torch.randint(-4, 5, (1,), generator=draw))


def integer_sensitivity(folder: Path, effort: Effort) -> list[Finding]:
    """A person comes and goes among others, whatever her records are: how far does the sum move, in whole units?"""
    longest, odd, whole = Fraction(0), 0, 0
    for width, bits in ((96, 10), (3000, 10)):
        others = torch.randn(3, width, generator=torch.Generator().manual_seed(1))
        nobody = torch.zeros(0, width)
        for _, row in people(width, bits, effort):
            with_her, without = (_sum(rows, bits) for rows in (torch.cat([others, row[None]]), others))
            alone = _sum(torch.cat([nobody, row[None]]), bits)
            moved = [int(a) - int(b) for a, b in zip(with_her, without, strict=True)]
            odd += moved != [int(value) for value in alone]
            whole += alone.dtype != np.int64
            longest = max(longest, Fraction(sum(value * value for value in moved), 4**bits))
    return [
        judge("integer sensitivity", float(longest), (0.0, 1.0), "Squared length of the largest change, over 4^k."),
        never("changes that follow from others", odd, "People who move the sum by another vector than alone."),
        never("sums that are not whole", whole, "Types other than int64."),
    ]


def _sum(rows: torch.Tensor, bits: int) -> Integers:
    return integers.clipped_integer_sum(rows, 1.0, bits)[0]
