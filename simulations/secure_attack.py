"""Token recovery from everything that the server of a run has seen: of single updates, of masked ones, of their sum.

The run is played as any other; a grid keeps all its messages. The attacker is an honest but curious server: it knows
base, adapter, plan, optimiser and how much masks, noise and rounding blur each number, and is given no record. Attacks:
``llmchain_fl/privacy/attacks/token_recovery.py``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from client.app import make_app
from client.rounds import loop_of
from client.trial import load
from llmchain_fl.config.schema import RunConfig
from llmchain_fl.config.write import to_toml
from llmchain_fl.core.errors import WireError
from llmchain_fl.core.guards import SiteGuards
from llmchain_fl.core.messages import TrainTask
from llmchain_fl.core.tasks.base import Task
from llmchain_fl.core.wire import read_train_task
from llmchain_fl.core.work import WorkSpec, open_work
from llmchain_fl.privacy.attacks.secure_view import View, views
from llmchain_fl.privacy.attacks.token_recovery import learn_inverse, noise_floor, pursue
from llmchain_fl.progress import Logged
from llmchain_fl.replies import Update, read_reply
from llmchain_fl.run_dir import RunDir
from server.app import run_all
from simulations.prepare import prepare_sites
from simulations.recording import Passed, RecordingGrid, heard

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]
FIRST_LAYER = tuple(f"layers.0.self_attn.{name}_proj.lora_A" for name in "qkv")


@dataclass(frozen=True)
class Played:
    """A run, and all that passed between server and sites."""

    run: RunDir
    log: list[Passed]


def play(config: RunConfig, folder: Path) -> Played:
    """Play ``config`` in this process."""
    run = RunDir.create(folder, to_toml(config))
    by_name = {site.name: site for site in prepare_sites(config, run.sites)}
    grid = RecordingGrid(make_app(lambda context: by_name[str(context.node_config["site-name"])]), by_name)
    run_all(config, run, grid, Logged())
    return Played(run, grid.log)


class Attacked:
    """One round under attack: the adapter as the server sent it out is in memory.

    Args:
        played: the run.
        number: of the round.
    """

    def __init__(self, played: Played, number: int) -> None:
        self._played = played
        tasks = [(one, read_train_task(one.sent.content)) for one in played.log if _trains(one)]
        self.passed = {one.site: one for one, task in tasks if task.round == number}
        self.sent: TrainTask = next(task for _, task in tasks if task.round == number)
        self.work = WorkSpec.from_json(self.sent.work)
        resident, self.task = open_work(self.work.resident, self.work.task)
        load(resident, self.sent, {})
        self.start = resident.theta.clone()
        self.shapes = {name: resident.shapes[name] for name in sorted(resident.trained_names)}
        self.size = sum(math.prod(shape) for shape in self.shapes.values())
        tokenizer = resident.base.tokenizer
        self.vocabulary = len(tokenizer)
        self.known = [token for token in (tokenizer.bos_token_id, tokenizer.eos_token_id) if token is not None]

    def seen(self) -> list[View]:
        """Every vector that the server can compute: a site's update, or the views of the masked ones."""
        if self.work.secure is not None:
            return views(heard(self._played.log), self.sent.run, self.sent.round, self.work, self.size)
        return [View("an update", (site,), self._flat(_update(one).arrays)) for site, one in self.passed.items()]

    def truth(self, view: View) -> NDArray[np.int64]:
        """How often each token stands in the records of the view's sites, [V]; known marks are not counted."""
        folder, name = self._played.run.sites, f"{self.sent.stage_name}.jsonl"
        lines = [line for site in view.sites for line in (folder / site / name).read_text("utf-8").splitlines()]
        return np.asarray(self.bags([json.loads(line) for line in lines]).sum(axis=0))

    def bags(self, rows: Sequence[Mapping[str, str]]) -> NDArray[np.int64]:
        """How often each token stands in each record, [n, V]."""
        ids = self.task.encode(rows).ids
        counts = np.array([np.bincount(one, minlength=self.vocabulary) for one in ids], dtype=np.int64)
        counts[:, self.known] = 0
        return counts

    def pursued(self, view: View) -> Mask:
        """Tokens whose vectors span the rows of dA of the first layer, [V]; for rules that train ``lora_A``."""
        rows = [part for name, part in self._parts(view.vector).items() if name.endswith(FIRST_LAYER)]
        stacked = np.concatenate(rows)
        floor = noise_floor((stacked.shape[0], stacked.shape[1]), float(self.start.abs().max()), view.blur)
        mask = np.zeros(self.vocabulary, dtype=np.bool_)
        mask[list(pursue(stacked, first_inputs(self.task), floor, self.known[:1]))] = True
        mask[self.known] = False
        return mask

    def made(self, rows: Sequence[Mapping[str, str]]) -> Floats:
        """What a site with one of these records would have sent, without noise, [n, P]: the server tries it itself."""
        examples, plan, vectors = self.task.encode(rows), self.work.plan, []
        resident, guards = self.task.resident, SiteGuards((), {})
        train = loop_of(self.work.train.method)
        for record in range(len(rows)):
            resident.theta.copy_(self.start)
            batch = [np.array([record], dtype=np.int64)]
            result = train(self.task, examples, [batch], self.work.train, None, guards, self.sent.lr)
            arrays = result.arrays if result.direct else {n: v - self.sent.arrays[n] for n, v in result.arrays.items()}
            flat = self._flat(arrays)
            if plan is not None and plan.is_shared:
                flat *= 1.0 if plan.unit == "site" else self.work.train.batch_size
                flat *= min(1.0, plan.clip_norm / max(float(np.linalg.norm(flat)), 1e-12))
            vectors.append(flat)
        resident.theta.copy_(self.start)
        return np.array(vectors)

    def learned(
        self, made: Floats, bags: NDArray[np.int64], seen: Sequence[View], seed: int = 1
    ) -> tuple[NDArray[np.bool_], Floats]:
        """(the guesses [views, V] of a map from updates to tokens, the mean of its public examples [V]).

        Args:
            made, bags: of public records.
            seen: views of one kind: of as many sites each, blurred alike.
            seed: of the groups of public records.
        """
        draw, several = np.random.default_rng(seed), len(seen[0].sites)
        cut = len(made) - len(made) // 5
        halves = [np.arange(cut), np.arange(cut, len(made))]  # the part that is kept apart shares no record
        groups = np.array([draw.permutation(half)[:several] for half in halves for _ in half])
        known, counts = made[groups].sum(axis=1), bags[groups].sum(axis=1)
        inverse = learn_inverse(known, counts, seen[0].blur, false_positives=0.05)
        guessed = inverse.guess(np.array([view.vector for view in seen]))
        return guessed, np.asarray(inverse.prior, dtype=np.float64)

    def _flat(self, arrays: Mapping[str, Any]) -> Floats:
        return np.concatenate([np.asarray(arrays[name], dtype=np.float64).ravel() for name in self.shapes])

    def _parts(self, vector: Floats) -> dict[str, Floats]:
        parts, start = {}, 0
        for name, shape in self.shapes.items():
            parts[name] = vector[start : start + math.prod(shape)].reshape(shape)
            start += math.prod(shape)
        return parts


def first_inputs(task: Task) -> Floats:
    """What each token of the vocabulary puts into q, k and v of the first layer of a Llama, [V, width]."""
    model: Any = task.resident.base.module.model
    with torch.no_grad():
        return np.asarray(model.layers[0].input_layernorm(model.embed_tokens.weight).double().numpy())


def _trains(one: Passed) -> bool:
    return bool(one.sent.metadata.message_type == "train") and not one.reply.has_error()


def _update(one: Passed) -> Update:
    update = read_reply(one.reply.content)
    if not isinstance(update, Update):
        raise WireError(f"{one.site} has sent no update", remedy="look at its log")
    return update
