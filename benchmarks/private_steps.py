"""Private training of a head on frozen features, played in numpy: what benches of operating points share.

The product's own pieces where they are cheap: features of its base, its Adam (``aggregation/optimizers.py`` with the
constants of ``aggregation/lockstep.py``), its learning-rate schedule, its calibration of noise. Clipping per person is
``core/privacy/clipping.py`` by another road, with the same sum (:func:`same_clipping` compares them). Draws and noise
are numpy's: nothing here is private, and nothing is released.
"""

from __future__ import annotations

import functools
import unittest.mock
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import bench  # noqa: F401  (the checkout comes first on the path)
import numpy as np
import torch
from numpy.typing import NDArray

from llmchain_fl.aggregation.lockstep import BETA2, EPSILON
from llmchain_fl.aggregation.optimizers import Settings, Steps
from llmchain_fl.core.adapter.resident import ResidentSpec
from llmchain_fl.core.adapter.value import AdapterSpec
from llmchain_fl.core.base_model import BaseSpec
from llmchain_fl.core.privacy.clipping import clipped_sum
from llmchain_fl.core.tasks.classification import Classification
from llmchain_fl.core.tasks.spec import TaskSpec
from llmchain_fl.core.work import open_work
from llmchain_fl.data.generated import generate, label_texts
from llmchain_fl.data.generated.bank_templates import phrases
from llmchain_fl.planning.calibrate import calibrate
from llmchain_fl.planning.signal import run_ratio, step_ratio
from server.schedule import learning_rate

Floats = NDArray[np.float32]
Whole = NDArray[np.int64]
DELTA, SCALE, MOST = 1e-5, 20.0, 4
"""Delta; ``task.scale``; most records of a person."""


@dataclass(frozen=True)
class Data:
    """Unit vectors, 1/SCALE behind them for the bias [n, H + 1]; labels [n]; who each is of; the texts' vectors."""

    x: Floats
    y: Whole
    person: Whole
    test_x: Floats
    test_y: Whole
    texts: Floats

    @property
    def trained(self) -> int:
        """d: numbers of the head."""
        return self.texts.size

    def right(self, head: Floats) -> float:
        """Share of right answers on the validation records."""
        return float(((self.test_x @ head.T).argmax(axis=1) == self.test_y).mean())


@dataclass(frozen=True)
class Point:
    """An operating point: what is varied one at a time."""

    lr: float = 0.01
    lr_final: float = 1.0
    q: float = 1.0
    rounds: int = 30
    clip: float = 1.0
    people: int = 1000
    epsilon: float = 3.0
    noise: str = "sum"
    """``sum``, ``site``, or ``none``: no noise."""
    sites: int = 10
    steps: int = 1
    """1: lockstep; more: steps of each site's own, with the noise of each."""
    unit: str = "sum"
    """What is clipped: the ``sum`` of a person's gradients or their ``mean``."""

    named: bool = True
    """The head starts from the label texts; else at zero: labels whose names say nothing."""
    first: float = 0.0
    """Share of the budget (of 1 / z^2, with q = 1) for class sums that are released before round 1 and mixed in."""

    @property
    def z(self) -> float:
        """Calibrated multiplier of the noise of one sum."""
        if self.noise == "none":
            return 0.0
        if self.first:  # Gaussians without sampling: their 1 / z^2 add up
            return float(_z(self.epsilon, 1.0, 1) * (self.rounds / (1 - self.first)) ** 0.5)
        return _z(self.epsilon, self.q, self.rounds * self.steps)

    def step(self, data: Data) -> float:
        """Noise over signal of one mean step."""
        noises = self.sites if self.noise == "site" else 1
        return step_ratio(self.z, data.trained, self.people * self.q, noises)

    def run(self, data: Data) -> float:
        """The same over the whole run, for what one label can learn."""
        return run_ratio(self.step(data), len(data.texts), self.rounds * self.steps)


@functools.cache
def _z(epsilon: float, q: float, steps: int) -> float:
    return calibrate(epsilon, DELTA, q, steps, tolerance=0.03, kind="poisson-discrete-gaussian")


def play(data: Data, point: Point, seed: int) -> tuple[float, float]:
    """Validation score of the last head, and of the mean over the last third of the rounds."""
    rng, people = np.random.default_rng(seed), int(data.person.max()) + 1
    chosen = Persons(data, rng.permutation(people)[: point.people])
    head, optimizer = _started(chosen, data, point, rng), Steps("adam")
    tail, late = np.zeros(head.shape), point.rounds - max(1, point.rounds // 3)
    for number in range(point.rounds):
        lr = learning_rate(number, point.rounds, point.lr, point.lr_final)
        if point.steps > 1:
            head = _local(chosen, head, point, lr, rng)
        else:
            drawn = np.flatnonzero(rng.random(point.people) < point.q)
            each = point.sites if point.noise == "site" else 1
            noise = point.z * point.clip * each**0.5 * rng.standard_normal(head.shape)
            mean = (chosen.clipped(head, drawn, point) + noise) / (point.people * point.q)
            head = head + optimizer.along("head", -mean, Settings(lr, 0.9, BETA2, EPSILON)).astype(np.float32)
        tail += head * (number >= late)
    return data.right(head), data.right((tail / (point.rounds - late)).astype(np.float32))


def _started(chosen: Persons, data: Data, point: Point, rng: np.random.Generator) -> Floats:
    """The label texts or zeros; with released class sums: those, mixed with the texts by how noisy they are."""
    texts = data.texts if point.named else np.zeros_like(data.texts)
    if not point.first:
        return texts.copy()
    noise = _z(point.epsilon, 1.0, 1) * point.clip / point.first**0.5
    sums = chosen.class_sums(len(texts), point.clip)[:, :-1]
    sums = sums + noise * rng.standard_normal(sums.shape)
    lengths = np.linalg.norm(sums, axis=1, keepdims=True)
    square = noise**2 * sums.shape[1]
    signal = np.sqrt(np.maximum(lengths**2 - square, noise**2 * sums.shape[1] ** 0.5))
    mixed = sums / lengths + 0.5 * square / (lengths * signal) * texts[:, :-1]
    return np.pad(mixed / np.linalg.norm(mixed, axis=1, keepdims=True), ((0, 0), (0, 1))).astype(np.float32)


def _local(chosen: Persons, head: Floats, point: Point, lr: float, rng: np.random.Generator) -> Floats:
    """One round of ``point.steps`` steps at each site, persons dealt alike; the mean of what comes of them."""
    each = point.people // point.sites
    found = np.zeros(head.shape)
    for site in range(point.sites):
        mine, optimizer = head.copy(), Steps("adam")
        for _ in range(point.steps):
            drawn = site * each + np.flatnonzero(rng.random(each) < point.q)
            noise = point.z * point.clip * rng.standard_normal(head.shape)
            mean = (chosen.clipped(mine, drawn, point) + noise) / (each * point.q)
            mine = mine + optimizer.along("head", -mean, Settings(lr, 0.9, BETA2, EPSILON)).astype(np.float32)
        found += mine / point.sites
    return found.astype(np.float32)


class Persons:
    """The records of some persons, padded to MOST each, with the products of their vectors."""

    def __init__(self, data: Data, people: Whole) -> None:
        order = np.argsort(data.person, kind="stable")
        starts = np.searchsorted(data.person[order], people)
        counts = np.searchsorted(data.person[order], people, side="right") - starts
        self._there = np.arange(MOST) < counts[:, None]
        at = order[np.minimum(starts[:, None] + np.arange(MOST), len(order) - 1)]
        self._x, self._y = data.x[at], data.y[at]
        self._across = self._x @ self._x.transpose(0, 2, 1)

    def clipped(self, head: Floats, drawn: Whole, point: Point, among: Whole | None = None) -> NDArray[np.float64]:
        """Sum over the drawn persons of min(1, C / |g|) g, g: the gradient of a person's loss by the head [L, H + 1].

        ``among``: the labels of the softmax; None: all.

        |g|^2 = sum_ij (r_i . r_j)(h_i . h_j), r = softmax - one-hot, h = SCALE x: no person's gradient is written down.
        """
        there, x = self._there[drawn], self._x[drawn]
        rest = np.zeros((*there.shape, len(head)), dtype=np.float32)
        labels = np.arange(len(head)) if among is None else among
        rest[(*(part[:, None] for part in np.nonzero(there)), labels)] = _softmax(SCALE * x[there] @ head[labels].T)
        rest[(*np.nonzero(there), self._y[drawn][there])] -= 1.0
        if point.unit == "mean":
            rest /= there.sum(axis=1)[:, None, None]
        square = SCALE**2 * np.einsum("uij,uij->u", rest @ rest.transpose(0, 2, 1), self._across[drawn])
        rest *= np.minimum(1.0, point.clip / np.sqrt(np.maximum(square, 1e-30)))[:, None, None]
        return SCALE * (rest[there].T @ x[there]).astype(np.float64)

    def class_sums(self, labels: int, clip: float) -> NDArray[np.float64]:
        """Sum over all persons of their clipped ``sum y x^T``, [L, H + 1]; the last column stands for the bias."""
        found = np.zeros((labels, self._x.shape[2]))
        for there, x, y in zip(self._there, self._x, self._y, strict=True):
            own = np.eye(labels)[y[there]].T @ x[there]
            own[:, -1] = 0.0
            found += own * min(1.0, clip / max(float(np.linalg.norm(own)), 1e-12))
        return found

    def rows(self, head: Floats, drawn: Whole) -> torch.Tensor:
        """The gradients themselves, [persons, L (H + 1)]."""
        found = []
        for person in drawn:
            x = self._x[person][self._there[person]]
            rest = _softmax(SCALE * x @ head.T) - np.eye(len(head))[self._y[person][self._there[person]]]
            found.append(torch.from_numpy(SCALE * rest.T @ x).reshape(-1))
        return torch.stack(found)


def same_clipping(data: Data) -> float:
    """Largest difference of a clipped sum of 50 persons from that of ``clipped_sum``, over the largest entry."""
    chosen, drawn = Persons(data, np.arange(50)), np.arange(50)
    whole, _ = clipped_sum(chosen.rows(data.texts, drawn), 1.0)
    short = chosen.clipped(data.texts, drawn, Point()).reshape(-1)
    return float(np.abs(short - whole.numpy()).max() / np.abs(whole.numpy()).max())


def _softmax(logits: Floats) -> Floats:
    raised = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(raised / raised.sum(axis=1, keepdims=True), dtype=np.float32)


def bank(people: int, kept: Path | None = None) -> Data:
    """Generated bank messages of at least ``people`` made-up persons; the validation is of another seed.

    The templates of split ``train`` alone are used, and a quarter of them, held back from training, for validation:
    the templates of split ``test`` belong to what the demo reports.
    """
    file = None if kept is None else kept / f"bank-{people}.npz"
    if file is not None and file.exists():
        with np.load(file) as told:
            return Data(**{key: told[key] for key in told.files})
    known, rows = phrases(), []
    for seed, size, held in ((101, int(2.6 * people), False), (202, 1200, True)):
        told = {
            label: [text for i, text in enumerate(texts) if (i % 4 == 3) == held]
            for label, texts in known.templates["train"].items()
        }
        used = replace(known, templates={"train": told})
        with unittest.mock.patch("llmchain_fl.data.generated.bank_messages.phrases", lambda used=used: used):
            rows.append(generate("bank-messages", seed, size, "train"))
    names = {name: number for number, name in enumerate(dict.fromkeys(row["person"] for row in rows[0]))}
    made = embedded(label_texts, rows[0], rows[1], np.array([names[row["person"]] for row in rows[0]]), 32)
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        np.savez(file, **vars(made))
    return made


def embedded(
    labels: Mapping[str, str],
    train: Sequence[Mapping[str, str]],
    held: Sequence[Mapping[str, str]],
    person: Whole,
    max_tokens: int,
) -> Data:
    """Vectors of the product's task on the frozen base."""
    spec = TaskSpec("classification", labels=tuple(labels.items()), max_tokens=max_tokens)
    base = BaseSpec("minilm", device="cpu", kind="encoder")
    _, task = open_work(ResidentSpec(base, AdapterSpec(1, 1.0, ("query",), 1)), spec)
    assert isinstance(task, Classification)
    told, asked = task.encode(train), task.encode(held)
    x, held_x = (_biased(task.frozen_features(examples).numpy()) for examples in (told, asked))
    texts = np.pad(task.label_vectors.numpy(), ((0, 0), (0, 1)))
    return Data(x, told.targets, person, held_x, asked.targets, texts)


def _biased(x: Floats) -> Floats:
    """[n, H] -> [n, H + 1]."""
    return np.pad(x, ((0, 0), (0, 1)), constant_values=1 / SCALE).astype(np.float32)


def made_up(labels: int, people: int, near: float, seed: int = 5, width: int = 384) -> Data:
    """Unit vectors without a text: label by label a direction; its text and its records lie around it.

    ``near``: how much of a label's direction is in its text, in [0, 1].
    """
    rng = np.random.default_rng(seed)
    means = _unit(rng.standard_normal((labels, width)))
    texts = _unit(near * means + (1 - near) * _unit(rng.standard_normal((labels, width))))
    person = np.repeat(np.arange(people), rng.integers(1, MOST + 1, people))
    y, held_y = rng.integers(labels, size=len(person)), rng.integers(labels, size=2000)
    x, held_x = (_unit(means[to] + 2.5 * _unit(rng.standard_normal((len(to), width)))) for to in (y, held_y))
    return Data(_biased(x), y, person, _biased(held_x), held_y, np.pad(texts, ((0, 0), (0, 1))).astype(np.float32))


def _unit(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True))
