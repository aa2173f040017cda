"""A comparison as values: axes, their labels, and one cell for each combination and seed."""

from __future__ import annotations

import itertools
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

Only = Mapping[str, Sequence[str]]
"""Axis name -> the labels that are wanted."""


@dataclass(frozen=True)
class Axis:
    """One thing that differs: label -> the settings it stands for.

    Attributes:
        repeat: its labels are averaged over as seeds are (such as orders of the stages).
        baseline: the label that the others are subtracted from, pair by pair; empty for none.
    """

    name: str
    values: Mapping[str, tuple[str, ...]]
    repeat: bool = False
    baseline: str = ""


@dataclass(frozen=True)
class Cell:
    """One run: a label of each axis, a seed, and every setting that differs from the scenario."""

    labels: Mapping[str, str]
    seed: int
    settings: tuple[str, ...]

    @property
    def slug(self) -> str:
        """The name of its folder."""
        return slug([*self.labels.values(), f"seed{self.seed}"])

    @property
    def title(self) -> str:
        """``rule ffa, alpha 0.5, seed 1``."""
        return ", ".join([*(f"{axis} {label}" for axis, label in self.labels.items()), f"seed {self.seed}"])


@dataclass(frozen=True)
class Comparison:
    """A comparison as its file says it; ``compare/read.py`` makes it.

    Attributes:
        name: of the file.
        scenario: a shipped name, or the path of a TOML file.
        settings: lines for every cell, below those of the axes.
        skip: combinations that make no sense: axis -> labels, all of them must match.
        score: what is compared, a name of ``measures.MEASURES``.
        report: what else stands in the tables.
        continual: whether it compares guards over a stream.
        about: what a reader should know, such as the numbers others published.
    """

    name: str
    title: str
    scenario: str
    seeds: tuple[int, ...]
    axes: tuple[Axis, ...]
    settings: tuple[str, ...] = ()
    skip: tuple[Only, ...] = ()
    score: str = "accuracy"
    report: tuple[str, ...] = ("bytes", "seconds")
    continual: bool = False
    about: str = ""

    @property
    def shown(self) -> tuple[Axis, ...]:
        """The axes that are rows and columns of the tables."""
        return tuple(axis for axis in self.axes if not axis.repeat)

    @property
    def repeats(self) -> tuple[Axis, ...]:
        """The axes that are averaged over."""
        return tuple(axis for axis in self.axes if axis.repeat)

    @property
    def baseline(self) -> Axis | None:
        """The first axis with a baseline."""
        return next((axis for axis in self.axes if axis.baseline), None)

    def combinations(self) -> Iterator[dict[str, str]]:
        """Every combination of labels that is not skipped, the last axis fastest."""
        names = [axis.name for axis in self.axes]
        for labels in itertools.product(*(axis.values for axis in self.axes)):
            chosen = dict(zip(names, labels, strict=True))
            if not any(matches(chosen, rule) for rule in self.skip):
                yield chosen

    def cells(self, seeds: Sequence[int] = (), only: Only | None = None) -> list[Cell]:
        """The cells of these seeds (default: the comparison's own) and labels, seed by seed.

        All cells of the first seed come first, so that a whole table is there early.
        """
        wanted = [labels for labels in self.combinations() if matches(labels, only or {})]
        return [self._cell(labels, seed) for seed in (seeds or self.seeds) for labels in wanted]

    def _cell(self, labels: Mapping[str, str], seed: int) -> Cell:
        lines = [line for axis in self.axes for line in axis.values[labels[axis.name]]]
        return Cell(labels, seed, (*self.settings, *lines, f"seed = {seed}"))


def matches(labels: Mapping[str, str], rule: Only) -> bool:
    """Whether each axis named in ``rule`` has one of the labels named there."""
    return all(labels[axis] in wanted for axis, wanted in rule.items())


def slug(parts: Sequence[str]) -> str:
    """Labels as the name of a folder; ``compare/read.py`` refuses labels that would look alike."""
    return "-".join(re.sub(r"[^A-Za-z0-9.]+", "-", part).strip("-.") or "none" for part in parts)


def compare_command(name: str, options: Sequence[str]) -> str:
    """The command that makes, or goes on with, a whole comparison."""
    return shlex.join(["llmchain-fl", "compare", name, *options])


def simulate_command(scenario: str, settings: Sequence[str]) -> str:
    """The command that plays one cell alone."""
    given = [part for line in settings for part in ("--set", line.replace(" = ", "=", 1))]
    return shlex.join(["llmchain-fl", "simulate", scenario, *given])
