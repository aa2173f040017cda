"""LoRA steps of a causal language model on a GPU: ours, plain and private, beside a bare peft loop and Flower's recipe.

    python benchmarks/bench_gpu.py [--model smollm2] [--device cuda] [--dtype bfloat16] [--rows 16] [--tokens 256]
        [--steps 10] [--repeats 3] [--rank 32] [--roads peft,recipe,plain,private]

The same dialogues in the same batches for all, padded to the longest of the batch but for `private` (fixed shapes):

* peft      `get_peft_model`, the model's own loss, Adam: what anybody would write
* recipe    transformers' Trainer with the settings of Flower's LLM fine-tuning example (LoRA on all linear layers,
            gradient checkpointing, cosine learning rate); that example wraps the same Trainer in trl
* plain     a local step of a site, no privacy
* private   the same with a gradient for each record, clipped, summed and noised

Each road runs in a process of its own: tokens of records a second (median over repeats, synchronised), and its peak
memory; on a CPU that of the process. `sites`: processes that fit on the card beside each other, one site each. Without
a card: --device cpu --dtype float32 --model stories.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import torch
from bench import OUT, ROOT, show, write
from bench_private_step import peak as resident_mb

from client.gradients import gradient_of
from client.steady import shape_for
from llmchain_fl.core.adapter.resident import Resident, ResidentSpec
from llmchain_fl.core.adapter.value import AdapterSpec
from llmchain_fl.core.base_model import BaseSpec, load_base
from llmchain_fl.core.privacy.plan import PrivacyPlan
from llmchain_fl.core.privacy.units import Units
from llmchain_fl.core.tasks.base import Examples, Task
from llmchain_fl.core.tasks.causal_lm import CausalLM
from llmchain_fl.core.tasks.spec import TaskSpec
from llmchain_fl.core.work import open_work
from llmchain_fl.data.generated import generate

ROADS = ("peft", "recipe", "plain", "private")
LR = 5e-5
IGNORED = -100


def base_spec(given: argparse.Namespace) -> BaseSpec:
    """The base of all roads."""
    return BaseSpec(given.model, dtype=given.dtype, device=given.device, kind="causal-lm")


def records(task: Task, given: argparse.Namespace) -> tuple[Examples, list[list[int]]]:
    """The records, and which of them each step takes."""
    examples = task.encode(generate("bank-dialogues", seed=1, size=given.steps * given.rows, split="train"))
    order = sorted(range(len(examples)), key=examples.length)
    return examples, [order[at : at + given.rows] for at in range(0, len(order), given.rows)]


def ours(given: argparse.Namespace, *, private: bool) -> tuple[Callable[[], None], int]:
    """(all steps of a site, tokens of their records)."""
    adapter = AdapterSpec(given.rank, 2.0 * given.rank, ("all-linear",), trained=("lora_A", "lora_B"))
    spec = TaskSpec("causal-lm", max_tokens=given.tokens)
    resident, task = open_work(ResidentSpec(base_spec(given), adapter), spec)
    resident.focus(adapter.trained)
    examples, batches = records(task, given)
    plan = PrivacyPlan(0.1, 1.0, 1.0, given.steps, float(given.rows), 1e-5, unit="record") if private else None
    if private:
        examples = replace(examples, shape=shape_for(resident, task, given.tokens, given.rows))
    theta = torch.nn.Parameter(resident.trained)
    optimizer = torch.optim.Adam([theta], lr=LR)
    units = Units.of_records(len(examples)).members

    def play() -> None:
        with gradient_of(resident, examples, given.rows, plan) as gradient:
            for batch in batches:
                members = [units[record] for record in batch]
                summed = gradient(members, lambda index: task.losses(task.forward(examples, index)))
                theta.grad = summed / given.rows
                optimizer.step()

    return play, examples.tokens(range(len(examples)))


def theirs(given: argparse.Namespace, *, recipe: bool) -> tuple[Callable[[], None], int]:
    """The same with peft: a loop by hand, or transformers' Trainer."""
    from peft import LoraConfig, get_peft_model

    base = load_base(base_spec(given))
    examples, batches = records(CausalLM(cast("Resident", SimpleNamespace(base=base)), given.tokens), given)
    settings = LoraConfig(r=given.rank, lora_alpha=2 * given.rank, target_modules="all-linear")
    model = get_peft_model(base.module, settings)
    pad, device = base.tokenizer.pad_token_id or 0, base.device

    def batch_of(index: list[int]) -> dict[str, torch.Tensor]:
        ids, mask = examples.batch(index, pad, device)
        prompt = torch.as_tensor(examples.targets[index], device=device)[:, None]
        answer = (mask == 1) & (torch.arange(ids.shape[1], device=device)[None] >= prompt)
        return {"input_ids": ids, "attention_mask": mask, "labels": torch.where(answer, ids, IGNORED)}

    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=LR)

    def loop() -> None:
        model.train()
        for batch in batches:
            optimizer.zero_grad()
            model(**batch_of(batch)).loss.backward()
            optimizer.step()

    def trained() -> None:
        from transformers import Trainer, TrainingArguments

        arguments = TrainingArguments(
            str(OUT / "recipe"),
            per_device_train_batch_size=given.rows,
            max_steps=given.steps,
            learning_rate=LR,
            lr_scheduler_type="cosine",
            gradient_checkpointing=True,
            gradient_checkpointing_kwargs={"use_reentrant": False},
            bf16=given.dtype == "bfloat16" and given.device == "cuda",
            use_cpu=given.device == "cpu",
            report_to="none",
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
        )
        rows = [record for batch in batches for record in batch]
        Trainer(model=model, args=arguments, train_dataset=rows, data_collator=batch_of).train()

    return (trained if recipe else loop), examples.tokens(range(len(examples)))


def child(given: argparse.Namespace) -> dict[str, float]:
    """Tokens a second and peak MB of one road."""
    road = given.child
    play, tokens = (
        ours(given, private=road == "private") if road in ROADS[2:] else theirs(given, recipe=road == "recipe")
    )
    cuda, seconds = given.device == "cuda", []
    for repeat in range(given.repeats + 1):
        if cuda and repeat == 1:
            torch.cuda.reset_peak_memory_stats()
        begun = time.perf_counter()
        play()
        if cuda:
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - begun)
    mb = torch.cuda.max_memory_reserved() / 2**20 if cuda else resident_mb()
    return {"tokens": tokens / statistics.median(seconds[1:]), "mb": mb, "first": seconds[0]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("model", "smollm2"), ("device", "cuda"), ("dtype", "bfloat16"), ("roads", ",".join(ROADS))):
        parser.add_argument(f"--{name}", default=default)
    for name, number in (("rows", 16), ("tokens", 256), ("steps", 10), ("repeats", 3), ("rank", 32)):
        parser.add_argument(f"--{name}", type=int, default=number)
    parser.add_argument("--child", default="")
    given = parser.parse_args()
    if given.device == "cuda" and not torch.cuda.is_available():
        sys.exit("torch sees no CUDA device here: --device cpu --dtype float32 --model stories plays it without")
    if given.child:
        print(json.dumps(child(given)))
        return
    found = {}
    for road in given.roads.split(","):
        told = subprocess.run(
            [sys.executable, str(Path(__file__)), *sys.argv[1:], "--child", road],
            cwd=ROOT, check=False, capture_output=True, text=True,
        )  # fmt: skip
        if told.returncode:
            print(f"{road}: {told.stderr.strip().splitlines()[-1]}", flush=True)
            continue
        found[road] = json.loads(told.stdout.splitlines()[-1])
        print(road, {key: round(value, 1) for key, value in found[road].items()}, flush=True)
    if not found:
        sys.exit("no road was played to its end")
    card = torch.cuda.get_device_properties(0).total_memory / 2**20 if given.device == "cuda" else 0.0
    against = found.get("peft", next(iter(found.values())))
    lines = [
        [road, f"{one['tokens']:,.0f}", f"{one['tokens'] / against['tokens']:.2f}x", f"{one['mb']:,.0f}",
         f"{one['mb'] / against['mb']:.2f}x", int(card // one["mb"]) if card else "-"]
        for road, one in found.items()
    ]  # fmt: skip
    title = f"{given.model}, {given.dtype} on {given.device}, rank {given.rank}, {given.rows} records a step"
    show(title, ["road", "tokens/s", "of peft's", "peak MB", "of peft's", "sites"], lines)
    write("gpu", {"settings": vars(given), "roads": found, "card_mb": card})


if __name__ == "__main__":
    main()
