"""What a server, or an odd site file, can make of a site's booked epsilon: booked beside true, attack by attack.

    python benchmarks/bench_attacks_at_site.py            options: --people 12,48

Every line plays real rounds (``client/app.py``) at a made-up site over MiniLM. Sensitivities are read with the noise
replaced by nothing, which no option of a run can do; the path is otherwise the same. ``true``: the epsilon that the
plan's noise gives for the sensitivity (or the number of views) that was seen; ``booked``: what the site's ledger says.
``0.1``: the figure that the same attack had in version 0.1, by docs/privacy.md. A line is right where true <= booked.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from bench import show, write

from client.app import do_train
from client.outbox import refuse
from client.site import Site, read_site
from llmchain_fl.core.adapter.value import AdapterSpec, Arrays
from llmchain_fl.core.base_model import BaseSpec
from llmchain_fl.core.codec_spec import CodecSpec
from llmchain_fl.core.errors import LlmchainError
from llmchain_fl.core.messages import TrainTask
from llmchain_fl.core.privacy.accounting import epsilon
from llmchain_fl.core.privacy.events import Event
from llmchain_fl.core.privacy.noise import SecureNoise
from llmchain_fl.core.privacy.plan import PrivacyPlan
from llmchain_fl.core.tasks.spec import TaskSpec
from llmchain_fl.core.work import GuardSpec, TrainSpec, WorkSpec, open_work
from llmchain_fl.replies import Refusal, Update, read_reply

DELTA = 1e-5
FLOAT = 1e-4
"""Sums are read out of float32 updates: a sensitivity of C comes out as C (1 +- 1e-6)."""
LABELS = (("flu", "flu"), ("cold", "cold"), ("well", "well"))
WORDS = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]
LONG = "patient has a cough and also a very rare disease that is seldom seen here"
Row = Mapping[str, str]


@dataclass
class Line:
    """One attack: what was booked, and what it is in truth."""

    attack: str
    old: str
    booked: float
    true: float
    note: str = ""

    def cells(self) -> list[str]:
        """As the table shows it."""
        good = "right" if self.true <= self.booked * (1 + FLOAT) else "BOOKED BELOW THE TRUTH"
        return [self.attack, self.old, f"{self.booked:.2f}", f"{self.true:.2f}", good, self.note]


def crowd(count: int) -> list[Row]:
    """Persons with one short record each."""
    return [
        {"note": f"patient has a cough {WORDS[i % 12]}", "department": LABELS[i % 3][0], "person": f"p{i}"}
        for i in range(count)
    ]


def row(note: str, department: str = "cold", person: str = "target") -> Row:
    """One more record."""
    return {"note": note, "department": department, "person": person}


def make_site(folder: Path, files: Mapping[str, Sequence[Row]], train: str = "{stage}.jsonl", **told: Any) -> Site:
    """A site with these files."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in files.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows))
    alone = str(bool(told.get("alone"))).lower()
    (folder / "site.toml").write_text(
        f'name = "north"\n[data]\nname = "{told.get("data_set", "notes")}"\ntrain = "{train}"\n'
        f'columns = {{ text = "note", label = "department" }}\none_record_per_person = {alone}\n'
        f"[limits]\nepsilon = {told.get('limit', 1e9)}\n"
    )
    return read_site(folder / "site.toml")


def plan_of(**changed: Any) -> PrivacyPlan:
    """Everybody in every step; one step a round."""
    told = {"sampling_rate": 1.0, "noise_multiplier": 4.0, "clip_norm": 1e-3, "steps_per_round": 1, "divisor": 1.0}
    return PrivacyPlan(**{**told, "delta": DELTA, "records_per_unit": 8, **changed})


def work_of(plan: PrivacyPlan, **changed: Any) -> WorkSpec:
    """Classification over MiniLM's last two layers."""
    work = WorkSpec(
        BaseSpec("minilm", device="cpu"),
        AdapterSpec(2, 2.0, ("query",), 2, changed.pop("trained", ("lora_B",))),
        TaskSpec("classification", "label-text", LABELS, 10.0, "mean", 64),
        TrainSpec(plan.steps_per_round, plan.sampling_rate, plan.divisor, 256, "sgd", 0.0, 1),
        plan=plan,
        cache_mb=0,
        threads=1,
    )
    return replace(work, **changed)


def ask(site: Site, work: WorkSpec, number: int = 1, **changed: Any) -> Update | Refusal:
    """The answer of the site, or the code it sends for its exception."""
    arrays = changed.pop("arrays", None)
    told = {"run": "r", "round": number, "stage": 0, "stage_name": "s1", "lr": 1.0, "work": work.to_json()}
    task = TrainTask(**{**told, "arrays": start(work) if arrays is None else arrays, **changed})
    try:
        reply = read_reply(do_train(site, task, {}, None))
    except LlmchainError as error:
        reply = read_reply(refuse(error))
    assert isinstance(reply, Update | Refusal)
    return reply


def start(work: WorkSpec) -> Arrays:
    """The adapter's start."""
    resident, _ = open_work(work.resident, work.task)
    resident.focus(work.adapter.trained)
    return resident.fresh()


@contextmanager
def no_noise() -> Iterator[None]:
    """Sums as they are before the noise."""
    with patch.object(SecureNoise, "added", lambda self, values, std: values.float()):
        yield


def vector(reply: Update | Refusal) -> np.ndarray[Any, Any]:
    """The summed gradients; zeros where the site refused."""
    parts = (
        [] if isinstance(reply, Refusal) else [np.asarray(a, dtype=np.float64).ravel() for a in reply.arrays.values()]
    )
    return np.concatenate(parts) if parts else np.zeros(1)


def moved(without: Update | Refusal, other: Update | Refusal, clip: float) -> float:
    """How far one person moves the sum, in units of C; infinite where it decides about a refusal."""
    if isinstance(without, Refusal) != isinstance(other, Refusal):
        return math.inf
    return float(np.linalg.norm(vector(without) - vector(other))) / clip


def gaussian(noise: float, sensitivity: float, releases: int = 1) -> float:
    """Epsilon of ``releases`` Gaussian releases in which one person moves the sum by ``sensitivity`` C."""
    return 0.0 if sensitivity == 0 else epsilon((Event("gaussian", 1.0, noise / sensitivity, releases),), DELTA)


def booked(site: Site) -> float:
    """What the site's ledger says."""
    return site.open_ledger("person").spent().epsilon


def padding(folder: Path, people: int) -> Line:
    """Arrays that overflow where padding is: a long record would switch its neighbours off."""
    work = work_of(plan_of())
    arrays, direction = start(work), padding_direction(work)
    layer = "encoder.layer.4.attention.self.query"
    arrays[f"{layer}.lora_A"][:], arrays[f"{layer}.lora_B"][:] = 0, 0
    arrays[f"{layer}.lora_A"][0], arrays[f"{layer}.lora_B"][:, 0] = direction * 10, 1e38
    sums = []
    for name, rows in (("without", crowd(people)), ("with", [*crowd(people), row(LONG)])):
        site = make_site(folder / name, {"s1": rows})
        with no_noise(), patch("client.app.trial.try_out"):  # the trial alone would refuse it: look behind it
            sums.append(ask(site, work, arrays=arrays))
    size = moved(*sums, work.plan.clip_norm)
    old = {12: "3.24 C", 48: "12.2 C", 200: "50.2 C"}.get(people, "")
    return Line(f"padding, {people} people", old, booked(site), gaussian(4.0, size), f"{size:.3f} C")


def padding_direction(work: WorkSpec) -> np.ndarray[Any, Any]:
    """What tells the inputs of layer 4 at padding from those at text, float32 [H]."""
    resident, task = open_work(work.resident, work.task)
    resident.reset()
    rows = [*crowd(12), row(LONG)]
    examples = task.encode([{"text": one["note"], "label": one["department"]} for one in rows])
    layer = resident.base.module.get_submodule("encoder.layer.4.attention.self.query")
    seen: list[torch.Tensor] = []
    hook = layer.register_forward_hook(lambda _module, inputs, _output: seen.append(inputs[0].detach()))
    with torch.no_grad():
        task.forward(examples, range(len(examples)))
    hook.remove()
    mask = examples.batch(range(len(examples)), 0, torch.device("cpu"))[1].bool()
    text, pad = (seen[0][part].double().numpy() for part in (mask, ~mask))
    both, wanted = np.vstack([text, pad]), np.r_[np.zeros(len(text)), np.ones(len(pad))]
    found = np.linalg.solve(both.T @ both + 1e-3 * np.eye(both.shape[1]), both.T @ wanted)
    return np.asarray(found, dtype=np.float32)


def rehearsal(folder: Path, alone: bool) -> Line:
    """One file for all stages, and the guard that trains on earlier ones again."""
    plan = plan_of(noise_multiplier=2.0, rehearsal="earlier")
    work = work_of(plan, guards=(GuardSpec("rehearsal", (("keep", 1.0),)),))
    sums = []
    for name, extra in (("without", []), ("with", [row("hiv positive and shingles")])):
        site = make_site(folder / name, {"all": [*crowd(6), *extra]}, train="all.jsonl", alone=alone)
        with no_noise():
            sums.append(ask(site, work, stage_name="s3", earlier=("s1", "s2")))
    size = moved(*sums, plan.clip_norm)
    kind = "persons not named" if alone else "persons named"
    return Line(
        f"rehearsal, one file, {kind}", "3.00 C" if alone else "", booked(site), gaussian(2.0, size), f"{size:.3f} C"
    )


def named_nine_times(folder: Path) -> Line:
    """The present stage among the earlier ones, nine times."""
    work = work_of(
        plan_of(noise_multiplier=2.0, rehearsal="earlier"), guards=(GuardSpec("rehearsal", (("keep", 1.0),)),)
    )
    site = make_site(folder, {"s1": crowd(6)}, alone=True)
    reply = ask(site, work, earlier=("s1",) * 9)
    said = f"refused as {reply.code}" if isinstance(reply, Refusal) else "played"
    return Line(
        "rehearsal, stage named nine times", "10.0 C", booked(site), 0.0 if said != "played" else math.inf, said
    )


def views(folder: Path) -> Line:
    """A round that fails after training, read through what the site kept of it, and asked for again."""
    plan, both = plan_of(noise_multiplier=20.0), ("lora_A", "lora_B")
    packed = work_of(plan, trained=both, codec=CodecSpec("top-k", 64, 0.5, True))
    site = make_site(folder, {"s1": crowd(30)})
    answers = [ask(site, packed)]
    with patch("client.outbox.release", side_effect=OSError("between training and seal")), suppress(OSError):
        ask(site, packed, 2, keeps=("lora_A",))
    kept = site.memory("r").before(3, lambda number: site.open_ledger("person").seal_of(f"r/{number}"))
    answers.append(ask(site, packed, 2, keeps=("lora_A",)))
    seen = sum(isinstance(reply, Update) for reply in answers) + bool(kept)
    return Line(
        "a failed attempt, then the round again",
        "2N - 1 views",
        booked(site),
        gaussian(20.0, 1.0, seen),
        f"{seen} views",
    )


def nameless(folder: Path) -> Line:
    """The same people first without names, then with names and disjoint stages."""
    site = make_site(folder, {"s1": crowd(6)}, alone=True)
    ask(site, work_of(plan_of(noise_multiplier=1.0)), run="a")
    site = make_site(folder, {"s1": crowd(6)})
    ask(site, work_of(plan_of(noise_multiplier=1.0, stages="disjoint")), run="b")
    return Line("without names, then with names", "4.38 booked", booked(site), gaussian(1.0, 1.0, 2))


def renamed(folder: Path) -> Line:
    """The same people under another name of the data set."""
    site = make_site(folder, {"s1": crowd(6)})
    ask(site, work_of(plan_of(noise_multiplier=1.0)), run="a")
    site = make_site(folder, {"s1": crowd(6)}, data_set="other")
    ask(site, work_of(plan_of(noise_multiplier=1.0)), run="b")
    return Line("data set renamed", "4.38 booked", booked(site), gaussian(1.0, 1.0, 2))


def oracle(folder: Path) -> Line:
    """Is there a record of a label? Asked by a list without it, in a round that can never be paid."""
    codes = set()
    for name, extra in (("absent", []), ("there", [row("kaposi", "hiv")])):
        site = make_site(folder / name, {"s1": [*crowd(12), *extra]}, limit=1.0)
        reply = ask(site, work_of(plan_of(noise_multiplier=0.02)))
        codes.add(reply.code if isinstance(reply, Refusal) else "update")
    return Line(
        "label list as a question",
        "data or budget",
        booked(site),
        0.0 if len(codes) == 1 else math.inf,
        ", ".join(codes),
    )


def burnt(folder: Path) -> Line:
    """A refused task with disjoint stages, then an honest round: does anybody take part?"""
    site = make_site(folder, {"s1": crowd(12)}, limit=50.0)
    ask(site, work_of(plan_of(noise_multiplier=1e-3, stages="disjoint")), run="evil")
    with no_noise():
        size = float(np.linalg.norm(vector(ask(site, work_of(plan_of()), run="good"))))
    return Line(
        "register burnt by a refused task", "all left out", booked(site), gaussian(4.0, 1.0), f"sum {size / 1e-3:.1f} C"
    )


def unreadable(folder: Path) -> Line:
    """One record that the base cannot read, in the round and not in it."""
    sums = []
    for name, extra in (("without", []), ("with", [row("cough " * 3000)])):
        site = make_site(folder / name, {"s1": [*crowd(12), *extra]})
        with no_noise():
            sums.append(ask(site, work_of(plan_of())))
    size = moved(*sums, 1e-3)
    return Line("a record of 3,000 words", "error", booked(site), gaussian(4.0, size), f"{size:.3f} C")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--people", default="12,48")
    given = parser.parse_args()
    torch.set_num_threads(1)
    logging.getLogger("llmchain_fl").setLevel(logging.CRITICAL)
    with tempfile.TemporaryDirectory(prefix="attacks-") as name:
        folder = Path(name)
        lines = [padding(folder / f"pad-{count}", int(count)) for count in given.people.split(",")]
        lines += [rehearsal(folder / f"rehearsal-{alone}", alone) for alone in (True, False)]
        lines += [
            play(folder / play.__name__)
            for play in (named_nine_times, views, nameless, renamed, oracle, burnt, unreadable)
        ]
    head = ["attack", "in 0.1", "booked epsilon", "true epsilon", "", "seen"]
    show(f"booked and true epsilon (delta {DELTA:g}, per person, PLD)", head, [line.cells() for line in lines])
    write("attacks-at-site", {"lines": [line.cells() for line in lines]})


if __name__ == "__main__":
    main()
