"""One base with a task, guards and hostile arrays, for each kind of base, task and guard that is shipped."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from client.gradients import PrivateGradient
from client.steady import Brought, shape_for
from llmchain_fl.core.adapter.resident import _resident
from llmchain_fl.core.base_model import load_base
from llmchain_fl.core.guards import SiteGuards
from llmchain_fl.core.tasks.base import Examples
from llmchain_fl.core.work import GuardSpec, open_work

LONGEST, HUGE = 16, 3e38
DISTILL = GuardSpec("distill", (("batch", 4.0), ("data", "batch"), ("temperature", 2.0), ("weight", 3.0)))
ANCHOR = GuardSpec("anchor", (("strength", 5.0),))
CASES: dict[str, dict[str, Any]] = {
    "bert": {"base": "bert"},
    "bert, a trained head, distill, kept": {"base": "bert", "head": "trained", "guard": DISTILL, "last_layers": 1},
    "bert, anchor": {"base": "bert", "guard": ANCHOR, "trained": ("lora_B",)},
    "mobilebert": {"base": "mobilebert"},
    "fnet, distill, kept": {"base": "fnet", "guard": DISTILL, "last_layers": 1},
    "fnet, a trained head": {"base": "fnet", "head": "trained"},
    "deberta, a trained head": {"base": "deberta", "head": "trained", "last_layers": 1},
    "llama, instructions, distill, kept": {"base": "llama", "kind": "causal-lm", "guard": DISTILL, "last_layers": 1},
    "llama, plain text": {"base": "llama", "kind": "plain-text", "trained": ("lora_B",)},
    "gpt2, instructions": {"base": "gpt2", "kind": "causal-lm"},
    "llama, dialogue": {"base": "llama", "kind": "dialogue", "trained": ("lora_B",)},
    "t5, translation": {"base": "t5", "kind": "translation", "trained": ("lora_B",)},
    "gpt2, plain text, distill": {"base": "gpt2", "kind": "plain-text", "guard": DISTILL, "trained": ("lora_A",)},
}


class Silent:
    """The sum as it is before the noise."""

    def added(self, values: Tensor, std: float) -> Tensor:
        return values


class World:
    """One base with a task and guards, and records to draw from. ``brought``: fold and slots of the present arrays."""

    def __init__(self, task: Any, kind: str, specs: tuple[GuardSpec, ...], payload: dict[str, np.ndarray]) -> None:
        self.task, self.kind, self.specs, self.payload = task, kind, specs, payload
        self.guards = SiteGuards(specs, payload)
        self.words = np.array(sorted(set(self.resident.base.tokenizer.get_vocab().values()))[4:], dtype=np.int64)
        self.brought: dict[str, np.ndarray] = {}
        self.at_padding = at_padding(self)

    def __repr__(self) -> str:
        return self.kind

    @property
    def resident(self) -> Any:
        return self.task.resident

    def records(self, lengths: Sequence[int], seed: int) -> Examples:
        """Made-up token ids of these lengths, and a label, a prompt or nothing."""
        draw = np.random.default_rng(seed)
        ids = [self.words[draw.integers(0, len(self.words), size=length)] for length in lengths]
        targets = {
            "classification": lambda: draw.integers(0, 4, size=len(ids)),
            "causal-lm": lambda: np.array([draw.integers(1, max(2, length)) for length in lengths]),
            "translation": lambda: np.array([draw.integers(1, max(2, length)) for length in lengths]),
        }.get(self.kind, lambda: np.zeros(len(ids), dtype=np.int64))()
        said = [(draw.random(len(one)) < 0.5).astype(np.int64) for one in ids] if self.kind == "dialogue" else []
        return Examples(ids, np.asarray(targets, dtype=np.int64), notes=said)

    def load(self, arrays: str, seed: int) -> None:
        """What the server sends."""
        draw = np.random.default_rng(seed)
        made = {
            "ordinary": lambda shape: draw.normal(0, 0.3, shape),
            "zeros": np.zeros,
            "overflow": lambda shape: draw.normal(0, 1, shape) * HUGE / 4,
            "ill-conditioned": lambda shape: draw.choice([-1, 1], shape) * 10.0 ** draw.choice([-20, 0, 20], shape),
            "at padding": np.zeros,
            "queries of no number": lambda shape: draw.normal(0, 0.1, shape),
            "slots": lambda shape: draw.normal(0, 0.3, shape),
            "huge B": lambda shape: draw.normal(0, 1e-30, shape),
        }[arrays]
        told = {name: made(shape).astype(np.float32) for name, shape in self.resident.shapes.items()}
        told |= self.at_padding if arrays == "at padding" else {}
        if arrays == "queries of no number":  # infinity less infinity at every token: finite where no mask is added
            told |= {n: v * np.float32(3.0) for n, v in told.items()}
            name = query_of(self)
            told[name][:] = draw.normal(size=told[name].shape[1]) * 1e3
            told[name.replace("lora_A", "lora_B")][:] = np.resize([HUGE, -HUGE, 0.0], told[name].shape[0])
        if arrays == "huge B":
            told |= {n: np.full_like(v, HUGE) for n, v in told.items() if n.endswith("lora_B")}
        self.brought = self.slots(draw) if arrays == "slots" else {}
        self.resident.reset()
        self.resident.load(told | self.brought)

    def slots(self, draw: Any) -> dict[str, np.ndarray]:
        """A fold and a table of slots of a few sizes, which are the server's choice."""
        count, rank = int(draw.integers(1, 6)), int(draw.integers(1, 4))
        width, slots = self.resident.base.hidden_size, [draw.integers(1, count + 1, size=size) for size in (rank, 3)]
        told: dict[str, Any] = {"route.keys": draw.normal(size=(count, width)), "route.centre": np.zeros(width)}
        told |= {"route.tau": np.full(1, 1e-2), "slots.fold": slots[0], "slots.pair": slots[1]}
        for name in [name for name in self.resident.shapes if name.endswith("lora_B")]:
            d_out, d_in = self.resident.shapes[name][0], self.resident.shapes[name.replace("lora_B", "lora_A")][1]
            told[name.replace("lora_B", "fold_A")] = draw.normal(0, 0.3, (rank, d_in))
            told[name.replace("lora_B", "fold_B")] = draw.normal(0, 0.3, (d_out, rank))
        return {name: np.asarray(value, dtype=np.float32) for name, value in told.items()}

    def sum_of(self, examples: Examples, units: Sequence[Sequence[int]], clip: float, small: Any) -> Tensor:
        """Noise-free sum over these units, float64 [P]."""
        plan = small.plan(unit="person", records_per_unit=64, clip_norm=clip)
        gradient = PrivateGradient(self.resident, examples, plan, Silent())  # type: ignore[arg-type]
        try:
            return gradient([np.array(unit, dtype=np.int64) for unit in units], lambda i: self.loss(examples, i))
        finally:
            gradient.close()

    def fixed(self, examples: Examples, rows: int) -> Examples:
        """The records, in the passes that a site would take at most ``rows`` rows of."""
        brought = Brought(self.brought, self.payload, self.specs)
        examples.fix(shape_for(self.resident, self.task, LONGEST, rows, brought))
        return examples

    def loss(self, examples: Examples, index: Sequence[int]) -> Tensor:
        output = self.task.forward(examples, index)
        return self.task.losses(output) + self.guards.example_loss(self.task, examples, index, output)


def query_of(world: World) -> str:
    """lora_A of the lowest adapted layer of queries, where there is one."""
    names = [name for name in world.resident.shapes if name.endswith("lora_A")]
    return next((name for name in names if "query" in name or "q_proj" in name), names[0])


def at_padding(world: World) -> dict[str, np.ndarray]:
    """lora_A along a direction that tells padding from text, lora_B such that only padding overflows."""
    name = query_of(world)
    seen: list[Tensor] = []
    layer = world.resident.base.module.get_submodule(name.removesuffix(".lora_A"))
    hook = layer.register_forward_hook(lambda _m, inputs, _o: seen.append(inputs[0].detach()))
    examples = world.records([3, 5, 8, 9, 12, 16], seed=1)
    world.resident.reset()
    world.task.forward(examples, range(6))
    hook.remove()
    padding = examples.batch(range(6), 0, torch.device("cpu"))[1].numpy().reshape(-1) == 0
    x = seen[0].double().numpy().reshape(-1, seen[0].shape[-1])[: len(padding)]
    direction = np.linalg.solve(x.T @ x + 1e-6 * np.eye(x.shape[1]), x.T @ padding[: len(x)])
    a, b = (np.zeros(world.resident.shapes[n], dtype=np.float32) for n in (name, name.replace("lora_A", "lora_B")))
    a[0], b[0, 0] = direction / ((x @ direction)[padding[: len(x)]].min() or 1.0), 1.75e38
    return {name: a, name.replace("lora_A", "lora_B"): b}


@pytest.fixture(scope="module", params=CASES)
def world(request: pytest.FixtureRequest, small: Any) -> Iterator[World]:
    """Each case, over a base of its own."""
    told = dict(CASES[request.param])
    base, kind, guard = told.pop("base"), told.pop("kind", "classification"), told.pop("guard", None)
    work = small.work(kind, cache_mb=8 if "last_layers" in told else 0, **told)
    work = replace(work, base=replace(work.base, path=str(small.shape(base))))
    resident, task = open_work(work.resident, work.task)
    draw = np.random.default_rng(3)
    arrays = {n: draw.normal(0, 0.3, s).astype(np.float32) for n, s in resident.shapes.items()}
    payload = {f"teacher.{n}": v for n, v in arrays.items()} if guard is DISTILL else {}
    found = World(task, kind, (guard,) if guard else (), payload)
    yield found
    load_base.cache_clear()
    _resident.cache_clear()
