"""``README.md`` of an adapter folder: what it is, what plain peft serves of it, and how private it is.

peft reads two files of the folder and says nothing of the others. So the card says what is lost without them:

==================================  ==============================================================================
the folder                          plain peft
==================================  ==============================================================================
``head.safetensors``                leaves the trained head out, without a word
every product B A is 0              changes nothing: the base model, as it was (each site kept a factor of its own)
``slots.safetensors`` with keys     serves the sum of the slots to every text: no text chooses
``slots.safetensors`` without keys  serves what the run served
none of these, causal language      serves what the run served
none of these, classification       gives token vectors; labels need the label texts (``work.json``)
==================================  ==============================================================================
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from llmchain_fl.core.adapter.value import Arrays
from llmchain_fl.core.adapter.variants import VARIANTS, Variant
from llmchain_fl.core.printable import printable
from llmchain_fl.core.privacy.plan import PrivacyPlan
from llmchain_fl.core.tasks.kind import task_kind
from llmchain_fl.core.work import WorkSpec
from llmchain_fl.report.noised import noise_words, noised_by
from llmchain_fl.report.wording import epsilon_text

NAME = "README.md"
MOST_SHOWN = 30
"""Labels that the card names; the rest stand in ``work.json``."""
UNSTATED = "not stated in this folder: whoever trained it knows"


@dataclass(frozen=True)
class Facts:
    """What the card says beside the work description.

    Attributes:
        manifest: run, round, stage, parent, content, the base's public name, the privacy sentence.
        stages: stages that have a slot of their own; empty without slots.
        chooses: whether a text chooses among the slots.
    """

    manifest: Mapping[str, object]
    stages: tuple[str, ...] = ()
    chooses: bool = False

    def said(self, key: str, otherwise: str = "") -> str:
        """One entry of the manifest, fit for a cell."""
        return _cell(str(self.manifest.get(key, otherwise)))


def privacy_sentence(spent: float | None, terms: str, plan: PrivacyPlan | None) -> str:
    """What card and manifest say of privacy.

    Args:
        spent: the highest epsilon of the sites; None without privacy.
        terms: delta, unit and accountant, in words.
        plan: the run's.
    """
    if plan is None or spent is None:
        return "none: trained without differential privacy, the adapter may tell about single records"
    place = noise_words(noised_by(plan), plan.unit).place
    return f"epsilon {epsilon_text(spent, terms)}, the highest of the sites, over this run; noise is added at {place}"


def card(work: WorkSpec, arrays: Arrays, facts: Facts) -> str:
    """The text of the card."""
    rows = {
        "base model": f"`{facts.said('base')}`",
        "task": _task(work),
        "labels": _labels(work),
        "rounds": f"{facts.said('round')}, the last of stage {facts.said('stage')} (run {facts.said('run')})",
        "slots": ", ".join(_cell(stage) for stage in facts.stages),
        "privacy": facts.said("privacy", UNSTATED),
        "licence of the adapter": "not stated; whoever passes it on states it in `license` above",
        "licence of the base model": "its own: read it where the base model comes from",
        "taken out": facts.said("removed"),
        "content": f"`{facts.said('content')}`",
    }
    table = "\n".join(f"| {key} | {value} |" for key, value in rows.items() if value)
    served = "\n".join(f"* {line}" for line in served_by_peft(work, arrays, facts))
    title = f"{_variant(work).title} adapter, federated with llmchain_fl"
    return (
        f"{_front(work, facts)}\n# {title}\n\n| | |\n|---|---|\n{table}\n\n"
        f"## Use it\n\n```python\n{_code(work, facts)}\n```\n\n## What plain peft serves of it\n\n{served}\n"
    )


def served_by_peft(work: WorkSpec, arrays: Arrays, facts: Facts) -> list[str]:
    """The table of this file for one folder, a sentence each."""
    lines = []
    if _variant(work).product and not _moves(arrays):
        lines.append(
            "**Nothing.** Every product B A of this adapter is 0: each site keeps a factor of its own and serves that. "
            "`PeftModel.from_pretrained` gives the base model as it was."
        )
    elif facts.chooses:
        lines.append(
            "The **sum** of all slots, for every text. Which slot answers which text stands in `slots.safetensors`, "
            "which peft does not read: use `llmchain-fl predict`."
        )
    else:
        weights = "LoRA factors" if _variant(work).product else f"{_variant(work).title} numbers"
        lines.append(f"The {weights}: `PeftModel.from_pretrained(base, folder)` changes the base as the run did.")
    if work.task.head_size:
        lines.append(
            "**Not the trained head**: it stands in `head.safetensors`, which peft leaves out without a word. "
            "`llmchain_fl.Classifier` reads it."
        )
    elif work.task.labels:
        lines.append(
            "Token vectors, no labels: a label's score is the cosine of the pooled text with the base model's vector "
            "of the label's text (`work.json`, `task.labels`). `llmchain_fl.Classifier` computes it."
        )
    return lines


def _variant(work: WorkSpec) -> Variant:
    return VARIANTS[work.adapter.variant]


def _moves(arrays: Arrays) -> bool:
    """Whether some product B A is not 0."""
    pairs = [(value, arrays.get(name[: -len("lora_B")] + "lora_A")) for name, value in arrays.items()
             if name.endswith(".lora_B")]  # fmt: skip
    return any(first is not None and np.any(first) and np.any(second) for second, first in pairs)


def _code(work: WorkSpec, facts: Facts) -> str:
    kind = task_kind(work.task.kind)
    if kind.pooled and work.task.windows == 1 and not facts.chooses:
        return (
            "import llmchain_fl as lf             # reads the folder with transformers and peft alone\n"
            'classifier = lf.Classifier.from_folder("path/of/this/folder")\n'
            'classifier(["a text", "another text"])'
        )
    prompted = kind.writes and kind.base_kind == "causal-lm" and all(type(column) is str for column in kind.columns)
    if not prompted or facts.chooses:
        row = json.dumps(dict.fromkeys(kind.asked, "..."))
        call = 'predict(["a text", "another text"])' if len(kind.asked) == 1 else f"answer([{row}])"
        return (
            "from llmchain_fl.cli.trained import open_trained\nfrom pathlib import Path\n"
            f'open_trained(Path("path/of/this/folder"))[1].{call}'
        )
    base = json.dumps(facts.said("base"))
    return (
        "from transformers import AutoModelForCausalLM, AutoTokenizer; from peft import PeftModel\n"
        f"tokenizer, base = AutoTokenizer.from_pretrained({base}), AutoModelForCausalLM.from_pretrained({base})\n"
        'model = PeftModel.from_pretrained(base, "path/of/this/folder")\n'
        'model.generate(**tokenizer("a prompt", return_tensors="pt"), max_new_tokens=40)'
    )


def _front(work: WorkSpec, facts: Facts) -> str:
    """What the Hugging Face hub reads (YAML; a JSON text is YAML)."""
    kind = task_kind(work.task.kind)
    tag = kind.hub or ("text-generation" if kind.writes else "text-classification")
    lines = [
        f"base_model: {json.dumps(facts.said('base'))}",
        "library_name: peft",
        f"pipeline_tag: {tag}",
        "license: other",
        "license_name: not-stated",
        f"tags: [{work.adapter.variant}, federated-learning, llmchain_fl]",
    ]
    return "\n".join(["---", *lines, "---", ""])


def _task(work: WorkSpec) -> str:
    head = f", head `{work.task.head}`" if work.task.labels else ""
    windows = f"{work.task.windows} rows of " if work.task.windows > 1 else ""
    return f"`{work.task.kind}`{head}, texts cut to {windows}{work.task.max_tokens} tokens"


def _labels(work: WorkSpec) -> str:
    names = [_cell(name) for name, _ in work.task.labels]
    more = f" and {len(names) - MOST_SHOWN} more (`work.json`)" if len(names) > MOST_SHOWN else ""
    return f"{len(names)}: {', '.join(names[:MOST_SHOWN])}{more}" if names else ""


def _cell(text: str) -> str:
    """One line, no end of a cell."""
    return printable(" ".join(text.split())).replace("|", "\\|")
