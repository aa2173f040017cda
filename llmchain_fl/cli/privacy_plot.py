"""Epsilon over the rounds of a forecast as a file: both accountants, the stages, the budget."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path

from llmchain_fl.core.errors import ConfigError
from llmchain_fl.planning.forecast import Forecast
from llmchain_fl.report import figure as fig
from llmchain_fl.report import wording
from llmchain_fl.report.noised import noise_words
from llmchain_fl.report.readings import Curve, Stage

POINTS = 40
"""About so many rounds are computed; the ends of the stages are always among them."""

DPI = 200
NAMES = {"pld": "PLD", "rdp": "RDP"}


def draw(plan: Forecast, path: Path) -> None:
    """Write the plot; its kind follows from the ending of ``path``.

    Raises:
        ConfigError: the file cannot be written, or there is no finite epsilon to draw.
    """
    curves = {name: _curve(plan, name) for name in NAMES}
    finite = [y for curve in curves.values() for _, y in curve if math.isfinite(y)]
    if not finite:
        raise ConfigError(["no epsilon of this plan has a finite bound: there is nothing to draw"], remedy="add noise")
    who = noise_words(plan.noise, plan.unit).short
    terms = f"delta {wording.power(plan.delta)}, unit {plan.unit}, at a site that is in every round; {who}"
    with fig.drawing(3.2, f"epsilon before the run ({terms})") as (figure, axes):
        if len(plan.stages) > 1:
            axes.set_title(axes.get_title(loc="left"), pad=20)
        axes.set_ylabel("epsilon")
        axes.set_ylim(0, 1.12 * max([*finite, plan.target or 0.0]))
        fig.rounds_axis(axes, [0, plan.rounds], _stages(plan))
        if plan.target is not None:
            axes.axhline(plan.target, color=fig.INK, lw=1, ls=(0, (4, 3)))
            fig.beside(
                axes, f"budget {plan.target:g}, by {NAMES[plan.accountant]}", (axes.get_xlim()[0], plan.target), up=7
            )
        fig.lines(axes, curves, {name: f"{NAMES[name]} {wording.epsilon_text(curves[name][-1][1])}" for name in NAMES})
        try:
            figure.savefig(path, dpi=DPI)
        except OSError as error:
            raise ConfigError([f"{path} cannot be written: {error.strerror}"], remedy="name another file") from None


def _curve(plan: Forecast, accountant: str) -> Curve:
    return [(after, plan.epsilon_after(after, accountant)) for after in rounds_drawn(plan)]


def rounds_drawn(plan: Forecast) -> list[int]:
    """0, every stage's first and last round, and evenly spread rounds between them; all rounds of a short run."""
    step = max(1, math.ceil(plan.rounds / POINTS))
    starts = [1 + end for end in plan.ends[:-1]]
    return sorted({0, 1, *range(0, plan.rounds + 1, step), *plan.ends, *starts})


def _stages(plan: Forecast) -> list[Stage]:
    spans = zip(plan.stages, pairwise([0, *plan.ends]), strict=True)
    return [Stage(index, name, first + 1, last) for index, ((name, _), (first, last)) in enumerate(spans)]
