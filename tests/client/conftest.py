"""A site with records in a folder, reached as a server reaches it; and gradients by another road (``Case``)."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import Message, RecordDict
from flwr.common.serde import recorddict_to_proto
from torch import Tensor

from client.app import make_app
from client.gradients import gradient_of
from client.site import Site, SiteCompute, SiteData, SiteLimits
from llmchain_fl.core.adapter.resident import load_resident
from llmchain_fl.core.adapter.value import Arrays, fresh_arrays
from llmchain_fl.core.guards import SiteGuards
from llmchain_fl.core.messages import TrainTask
from llmchain_fl.core.score_task import ScoreTask
from llmchain_fl.core.tasks.base import Examples
from llmchain_fl.core.work import GuardSpec
from llmchain_fl.replies import Update, read_reply
from llmchain_fl.requests import write_score_task, write_train_task
from simulations.grid import InProcessGrid

CANARY = "Jane-Canary-1970"
LossFn = Callable[[Sequence[int]], Tensor]


class Ward:
    """A site whose records, folder and file names all carry ``CANARY``.

    ``limits``, ``compute`` and ``data`` of the site may be changed before each message.
    """

    canary = CANARY

    def __init__(self, small: Any, folder: Path) -> None:
        self.small, self.folder = small, folder / f"ward-{CANARY}"
        self.folder.mkdir(parents=True)
        self.write("cards.jsonl", [{**row, "text": f"{row['text']} {CANARY}"} for row in small.rows(12)])
        self.write("cards.held_out.jsonl", small.rows(6, seed=9))
        self.limits = SiteLimits(epsilon=60.0, units=["person", "record", "site"])
        self.compute = SiteCompute()
        self.data: dict[str, Any] = {}
        self.watched: list[Any] = []
        self.app: Any = None

    def write(self, name: str, rows: list[dict[str, str]]) -> None:
        """One JSON object a line."""
        (self.folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")

    @property
    def site(self) -> Site:
        """The site by its present limits."""
        files = {"train": self.folder / "{stage}.jsonl", "held_out": self.folder / "{stage}.held_out.jsonl"}
        data = SiteData(**{**{name: str(file) for name, file in files.items()}, **self.data})
        return Site(name="ward", state=str(self.folder / "state"), data=data, limits=self.limits, compute=self.compute)

    def work(self, *, private: bool = True, plan: Mapping[str, Any] | None = None, **settings: Any) -> Any:
        """Work that this site takes: lora_B only, and a plan that fits the loop, changed by ``plan``."""
        made = self.small.work(**{"trained": ("lora_B",), **settings})
        return replace(made, plan=self.small.plan(made, **(plan or {}))) if private else made

    def start(self, work: Any) -> Arrays:
        """The global arrays of the first round: what the sites train."""
        resident = load_resident(work.resident)
        names = {name: shape for name, shape in resident.shapes.items() if name in resident.trained_names}
        return fresh_arrays(names, work.adapter.seed)

    def task(self, work: Any, /, **changes: Any) -> TrainTask:
        """A train task as the server makes it."""
        told = {
            "run": "run-1",
            "round": 1,
            "stage": 0,
            "stage_name": "cards",
            "lr": 0.01,
            "work": work.to_json(),
            "arrays": self.start(work),
        }
        return TrainTask(**{**told, **changes})

    def train(self, work: Any, /, **changes: Any) -> RecordDict:
        """The content of the reply to a train task."""
        return self.send(write_train_task(self.task(work, **changes)), "train")

    def score(self, work: Any, stages: tuple[str, ...] = ("cards",), **changes: Any) -> RecordDict:
        """The content of the reply to a score task."""
        return self.send(
            write_score_task(replace(ScoreTask(4, stages, work.to_json(), self.start(work)), **changes)), "evaluate"
        )

    def send(self, content: RecordDict, kind: str, open_site: Any = None) -> RecordDict:
        """Over the grid; the site's program is started at the first message."""
        if self.app is None or open_site is not None:
            self.app = make_app(open_site or (lambda context: self.site), lambda *seen: self.watched.append(seen))
        grid = InProcessGrid(self.app, ["ward"])
        (reply,) = grid.send_and_receive([Message(content, dst_node_id=2, message_type=kind)])
        assert not reply.has_error()
        return reply.content

    def restart(self) -> None:
        """Forget everything that is not on the disk."""
        self.app = None

    def people(self, *names: str) -> list[dict[str, str]]:
        """A record of each of these persons."""
        rows = self.small.rows(len(names))
        return [{**row, "person": name} for row, name in zip(rows, names, strict=True)]

    def person_work(self, **plan: Any) -> Any:
        """Every person in every step, with all records: what was trained on can be counted."""
        told = {"unit": "person", "records_per_unit": 9, "noise_multiplier": 3.0, **plan}
        return self.work(train={"sampling_rate": 1.0, "steps": 3}, plan=told)

    def play(self, work: Any, number: int, stage: str = "cards", **changes: Any) -> Update:
        """The update of one round."""
        reply = read_reply(self.train(work, round=number, stage_name=stage, **changes))
        assert isinstance(reply, Update), reply
        return reply

    def trained_on(self) -> int:
        """Records in each step of the last round."""
        result = self.watched[-1][2]
        assert result.records % result.steps == 0
        return int(result.records // result.steps)

    def spent(self) -> Any:
        """What the ledger of persons comes to."""
        return self.site.open_ledger("person").spent()

    def back_up(self) -> None:
        """Keep a copy of everything on the disk."""
        shutil.copytree(self.folder, self.folder.with_name("copy"))

    def set_back(self) -> None:
        """Put the copy back, anchor and all, and start anew."""
        shutil.rmtree(self.folder)
        shutil.copytree(self.folder.with_name("copy"), self.folder)
        self.restart()

    def events(self) -> list[Mapping[str, Any]]:
        """Lines of the ledger."""
        file = self.folder / "state" / "ward" / "events.jsonl"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    def booked(self) -> list[str]:
        """What stands in the ledger, line by line; its first line only opens it."""
        return [event["type"] for event in self.events()][1:]

    def reserved(self) -> list[Any]:
        """(group, kind, steps) of every charge."""
        charges = [charge for event in self.events() if event["type"] == "reserve" for charge in event["charges"]]
        return [(charge["group"], charge["event"]["kind"], charge["event"]["steps"]) for charge in charges]


@pytest.fixture
def ward(small: Any, tmp_path: Path) -> Ward:
    """A fresh site."""
    return Ward(small, tmp_path)


@pytest.fixture
def hospital(ward: Ward) -> Ward:
    """A ward whose records name persons: three of stage ``cards``, one of them in ``loans`` again."""
    ward.limits = SiteLimits(epsilon=60.0, scores="noised")
    ward.write("cards.jsonl", ward.people("ann", "bob", "ann", "eve"))
    ward.write("loans.jsonl", ward.people("dan", "ann", "ann", "ann", "dan"))
    ward.write("cards.held_out.jsonl", ward.people("kim", "lea", "kim"))
    ward.write("loans.held_out.jsonl", ward.people("mia"))
    return ward


@pytest.fixture
def wire_bytes() -> Any:
    """RecordDict -> the bytes that travel."""
    return lambda content: recorddict_to_proto(content).SerializeToString(deterministic=True)


class Case:
    """A task with records, its loss with guards, and the slow loop over records."""

    count = 9

    def __init__(self, small: Any, kind: str = "classification", *, distill: bool = False, **settings: Any) -> None:
        self.task = small.task(kind, **settings)
        self.resident, self.small = self.task.resident, small
        self.examples = self.task.encode(small.rows(9, kind))
        draw = np.random.default_rng(5)
        teacher = {
            f"teacher.{name}": draw.normal(0, 0.3, shape).astype(np.float32)
            for name, shape in self.resident.shapes.items()
        }
        specs = [GuardSpec("distill", (("temperature", 2.0), ("weight", 3.0)))] if distill else []
        self.guards = SiteGuards(specs, teacher)

    def loss(self, index: Sequence[int]) -> Tensor:
        output = self.task.forward(self.examples, index)
        return self.task.losses(output) + self.guards.example_loss(self.task, self.examples, index, output)

    def each(self, loss: LossFn | None = None) -> np.ndarray:
        """Gradient of each record alone, float64 [n, P]."""
        parameters = [self.resident.parameters[name] for name in self.resident.trained_names]
        rows = [torch.autograd.grad((loss or self.loss)([i])[0], parameters) for i in range(self.count)]
        return np.array([torch.cat([g.reshape(-1) for g in row]).double().numpy() for row in rows])

    def private(
        self,
        clip: float,
        index: Sequence[int] = range(9),
        *,
        rows: int = 4,
        z: float = 0.0,
        loss: LossFn | None = None,
    ) -> Tensor:
        """One private gradient sum with its own hooks, in passes of ``rows`` records."""
        plan = self.small.plan(noise_multiplier=z, clip_norm=clip)
        with gradient_of(self.resident, self.fixed(rows), 1, plan) as gradient:
            return gradient(self.small.units(index), loss or self.loss)

    def fixed(self, rows: int = 4) -> Examples:
        """The records, passed in a fixed shape from here on."""
        fixed: Examples = self.small.fixed(self.examples, rows)
        return fixed

    @staticmethod
    def clipped(rows: np.ndarray, clip: float) -> np.ndarray:
        """sum_i g_i min(1, C / |g_i|), float64."""
        total = np.zeros(rows.shape[1])
        for row in rows:
            total += row * min(1.0, clip / np.linalg.norm(row))
        return total

    @staticmethod
    def median_norm(rows: np.ndarray) -> float:
        """A clip norm that clips about half of the records."""
        return float(np.median(np.linalg.norm(rows, axis=1)))

    @staticmethod
    def apart(found: Tensor, expected: np.ndarray) -> float:
        """Largest difference over the largest entry."""
        return float(np.abs(found.double().numpy() - expected).max() / np.abs(expected).max())


@pytest.fixture
def case_of(small: Any) -> Callable[..., Case]:
    """Settings -> ``Case``."""
    return lambda *args, **settings: Case(small, *args, **settings)
