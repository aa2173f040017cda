"""Hugging Face's Trainer in the place of the local loop, at every site. Only where privacy is off. About 20 seconds.

    python docs/examples/own_trainer.py [RUN]

A Trainer of TRL takes a causal language model the same way: ``model`` is then the transformers model itself, with the
LoRA layers in it, and ``datasets.Dataset.from_list(records)`` its data set.
"""

from __future__ import annotations

import sys
import tempfile
from typing import Any

from quick_start import PUBLIC, RECORDS
from transformers import Trainer, TrainingArguments

import llmchain_fl as lf


def train(model: Any, records: list[Any], spec: Any) -> None:
    """Train ``model`` in place; ``records``: input_ids, attention_mask, labels."""
    options = TrainingArguments(
        output_dir=tempfile.mkdtemp(),
        max_steps=spec.steps,
        learning_rate=spec.lr,
        per_device_train_batch_size=spec.batch_size,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        dataloader_pin_memory=False,
    )
    Trainer(model, options, train_dataset=records, processing_class=spec.tokenizer).train()


def main(out: str | None = None) -> lf.Result:
    """Two sites, two rounds."""
    settings = {
        "model": {"max_tokens": 16, "threads": 1},
        "adapter": {"rank": 4, "last_layers": 1},
        "train": {"steps": 6, "batch_size": 4, "lr": 0.005},
        "stage": [{"name": "first", "rounds": 2}],
    }
    result = lf.run(
        settings, train={"north": RECORDS[::2], "south": RECORDS[1::2]}, test=PUBLIC, trainer=train, out=out
    )
    print(result.predict(["somebody stole my card", "the transfer is late"]))
    return result


if __name__ == "__main__":
    main(*sys.argv[1:])
