"""Does a text find its slot? Keys of `route` on four public domains and on three thirds of one.

    python benchmarks/bench_route.py [--seeds 3] [--depths 0,4,2,1]

MiniLM. `domains`: DBpedia, Amazon, Yahoo, AG News; `thirds`: BANKING77 cut up by the alphabet of its labels, so stages
that differ in what is asked and hardly in how. 100 or 10 public records a stage make the keys, 150 others a stage
choose.
`domains by label texts`: the texts of the head's labels (scenario `standard-order-lora`) make the keys.

* right   share of texts whose own stage has the largest gate
* gate    mean gate of the own stage at tau = 0.05
* worst   the same share in the stage where it is lowest
* plain   the same without taking the centre off, as in the paper
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import random
import statistics
from collections.abc import Iterator

import torch
from bench import need, show, write

from llmchain_fl.config.read import read_config
from llmchain_fl.core.adapter.resident import ResidentSpec
from llmchain_fl.core.adapter.routing import Table, chosen
from llmchain_fl.core.adapter.value import AdapterSpec
from llmchain_fl.core.base_model import BaseSpec
from llmchain_fl.core.tasks.base import Task
from llmchain_fl.core.tasks.spec import TaskSpec
from llmchain_fl.core.work import open_work
from llmchain_fl.data.stages import public_labels, stage_labels
from llmchain_fl.guards.route import keys_of
from llmchain_fl.scenario import find_scenario

PUBLIC, FEW, TRIED, TAU = 100, 10, 150, 0.05
DEPTHS = {"0": "embeddings", "4": "after 2 of 6", "2": "after 4 of 6", "1": "after 5 of 6"}


def domains(draw: random.Random) -> Iterator[tuple[list[str], list[str]]]:
    """(public texts, others) of each of four domains."""
    for name in ("dbpedia", "amazon", "yahoo", "agnews"):
        found = []
        for part, size in (("train", PUBLIC), ("test", TRIED)):
            file = need(f"../shared/data/cl_benchmark/{name}_{part}.jsonl")
            rows = [json.loads(line)["text"] for line in file.read_text(encoding="utf-8").splitlines()]
            found.append(draw.sample(rows, size))
        yield found[0], found[1]


def thirds(draw: random.Random) -> Iterator[tuple[list[str], list[str]]]:
    """(public texts, others) of each third of BANKING77's labels."""
    rows = {}
    for part in ("train", "test"):
        with need(f"../shared/data/banking77/{part}.csv").open(encoding="utf-8") as file:
            rows[part] = [tuple(row.values())[:2] for row in csv.DictReader(file)]
    labels = sorted({label for _, label in rows["train"]})
    for third in range(3):
        own = [
            [text for text, label in rows[part] if labels.index(label) * 3 // len(labels) == third]
            for part in ("train", "test")
        ]
        yield draw.sample(own[0], PUBLIC), draw.sample(own[1], TRIED)


def by_labels(draw: random.Random) -> Iterator[tuple[list[str], list[str]]]:
    """(label texts, others) of each of the four domains."""
    config = read_config(find_scenario("standard-order-lora"), [])
    texts = public_labels(config)
    for stage, (_, others) in zip(config.stage, domains(draw), strict=True):
        yield [texts[label] for label in stage_labels(stage, list(texts)) or ()], others


STREAMS = {"domains": domains, "thirds": thirds, "domains by label texts": by_labels}


def opened(last_layers: int) -> Task:
    """MiniLM with an adapter on its last layers; 0: on all, so that token embeddings decide."""
    adapter = AdapterSpec(2, 4.0, ("query",), last_layers, ("lora_B",), 1)
    task = TaskSpec("classification", "label-text", (("any", "any"),), 20.0, "mean", 64)
    return open_work(ResidentSpec(BaseSpec("minilm", device="cpu"), adapter), task)[1]


def measured(task: Task, stages: list[tuple[list[str], list[str]]]) -> dict[str, float]:
    """One stream, one seed."""
    public = task.encode([{"text": text} for texts, _ in stages for text in texts])
    ends = list(itertools.accumulate(len(texts) for texts, _ in stages))
    groups = [range(end - len(texts), end) for end, (texts, _) in zip(ends, stages, strict=True)]
    keys, centre = (torch.from_numpy(part) for part in keys_of(task, public, groups))
    unit = torch.nn.functional.normalize
    with task.resident.router.listening() as seen, torch.no_grad():
        for group in groups:
            task.forward(public, group)
        known = torch.stack([unit(features, dim=-1).mean(dim=0) for features in seen])
        seen.clear()
        for _, texts in stages:
            task.forward(task.encode([{"text": text} for text in texts]), range(TRIED))
    rows, found = torch.zeros(0, dtype=torch.int64), dict[str, float]()
    for name, points, middle in (("", keys, centre), ("plain ", unit(known, dim=-1), torch.zeros_like(centre))):
        gates = [chosen(features, Table(points, middle, TAU, rows, rows)) for features in seen]
        right = [float((gate.argmax(1) == stage).float().mean()) for stage, gate in enumerate(gates)]
        found[f"{name}right"], found[f"{name}worst"] = statistics.fmean(right), min(right)
        found[f"{name}gate"] = statistics.fmean(float(gate[:, stage].mean()) for stage, gate in enumerate(gates))
    return found


def main() -> None:
    """Each stream, each number of public texts, four depths."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--depths", default=",".join(DEPTHS), help="how many last layers have an adapter")
    given = parser.parse_args()
    seeds = given.seeds
    torch.set_num_threads(1)
    table: list[dict[str, object]] = []
    for last_layers in given.depths.split(","):
        task, depth = opened(int(last_layers)), DEPTHS[last_layers]
        for (name, texts), few in itertools.product(STREAMS.items(), (PUBLIC, FEW)):
            if texts is by_labels and few == FEW:
                continue
            drawn = [texts(random.Random(seed)) for seed in range(1, seeds + 1)]
            runs = [measured(task, [(public[:few], others) for public, others in stages]) for stages in drawn]
            means = {key: round(statistics.fmean(run[key] for run in runs), 3) for key in runs[0]}
            keys = "labels" if texts is by_labels else few
            table.append({"stream": name, "texts": keys, "features": depth, **means})
    show("Own stage found, and its gate", list(table[0]), [list(row.values()) for row in table])
    write("route", {"seeds": seeds, "public": [PUBLIC, FEW], "tried": TRIED, "tau": TAU, "rows": table})


if __name__ == "__main__":
    main()
