"""Does a text find its slot? Keys of `route` on four public domains and on three thirds of one.

    python benchmarks/bench_route.py [--seeds 3]

MiniLM. `domains`: DBpedia, Amazon, Yahoo, AG News; `thirds`: BANKING77 cut up by the alphabet of its labels, so stages
that differ in what is asked and hardly in how. 100 public records a stage make the keys, 150 others a stage choose.

* right   share of texts whose own stage has the largest gate
* gate    mean gate of the own stage at tau = 0.05
* plain   the same without taking the centre off, as in the paper
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import statistics
from collections.abc import Iterator

import torch
from bench import need, show, write

from llmchain_fl.adapter.resident import ResidentSpec
from llmchain_fl.adapter.routing import Table, chosen
from llmchain_fl.adapter.value import AdapterSpec
from llmchain_fl.base_model import BaseSpec
from llmchain_fl.continual.guards.route import keys_of
from llmchain_fl.tasks.base import Task
from llmchain_fl.tasks.spec import TaskSpec
from llmchain_fl.work import open_work

PUBLIC, TRIED, TAU = 100, 150, 0.05


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


STREAMS = {"domains": domains, "thirds": thirds}


def opened(last_layers: int) -> Task:
    """MiniLM with an adapter on its last layers; 0: on all, so that token embeddings decide."""
    adapter = AdapterSpec(2, 4.0, ("query",), last_layers, ("lora_B",), 1)
    task = TaskSpec("classification", "label-text", (("any", "any"),), 20.0, "mean", 64)
    return open_work(ResidentSpec(BaseSpec("minilm", device="cpu"), adapter), task)[1]


def measured(task: Task, stages: list[tuple[list[str], list[str]]]) -> dict[str, float]:
    """One stream, one seed."""
    public = task.encode([{"text": text} for texts, _ in stages for text in texts])
    groups = [range(i * PUBLIC, (i + 1) * PUBLIC) for i in range(len(stages))]
    keys, centre = (torch.from_numpy(part) for part in keys_of(task, public, groups))
    with task.resident.router.listening() as seen, torch.no_grad():
        for start in range(0, len(public), 50):
            task.forward(public, range(start, start + 50))
        known = torch.nn.functional.normalize(torch.cat(seen), dim=-1).view(len(stages), PUBLIC, -1).mean(dim=1)
        seen.clear()
        for _, texts in stages:
            task.forward(task.encode([{"text": text} for text in texts]), range(TRIED))
    rows, found = torch.zeros(0, dtype=torch.int64), dict[str, float]()
    plain = torch.nn.functional.normalize(known, dim=-1)
    for name, points, middle in (("", keys, centre), ("plain ", plain, torch.zeros_like(centre))):
        gates = [chosen(features, Table(points, middle, TAU, rows, rows)) for features in seen]
        found[f"{name}right"] = statistics.fmean(float((g.argmax(1) == i).float().mean()) for i, g in enumerate(gates))
        found[f"{name}gate"] = statistics.fmean(float(g[:, i].mean()) for i, g in enumerate(gates))
    return found


def main() -> None:
    """Both streams, three depths."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=3)
    seeds = parser.parse_args().seeds
    torch.set_num_threads(1)
    table: list[dict[str, object]] = []
    for last_layers, depth in ((0, "embeddings"), (4, "after 2 of 6"), (2, "after 4 of 6")):
        task = opened(last_layers)
        for name, texts in STREAMS.items():
            runs = [measured(task, list(texts(random.Random(seed)))) for seed in range(1, seeds + 1)]
            means = {key: round(statistics.fmean(run[key] for run in runs), 3) for key in runs[0]}
            table.append({"stream": name, "features": depth, **means})
    show("Own stage found, and its gate", list(table[0]), [list(row.values()) for row in table])
    write("route", {"seeds": seeds, "public": PUBLIC, "tried": TRIED, "tau": TAU, "rows": table})


if __name__ == "__main__":
    main()
