"""A federation small enough to be run over real processes: a random BERT, twelve words, three labels."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from llmchain_fl.config.read import build
from llmchain_fl.config.schema import RunConfig
from llmchain_fl.config.write import to_toml

WORDS = {
    "card": ["card", "pin", "swallowed", "lost"],
    "loan": ["loan", "rate", "years", "repay"],
    "app": ["app", "login", "screen", "crash"],
}


def write_model(folder: Path) -> Path:
    """A random two-layer BERT and a word-level tokenizer, as ``save_pretrained`` leaves them."""
    import torch

    torch.manual_seed(0)
    vocabulary = ["[PAD]", "[UNK]", *sorted({word for words in WORDS.values() for word in words})]
    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(vocabulary)}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=words, pad_token="[PAD]", unk_token="[UNK]").save_pretrained(folder)
    shape = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=32,
    )
    BertModel(shape).save_pretrained(folder)
    return folder


def write_records(path: Path, count: int, seed: int) -> Path:
    """``count`` records of four words each, labels in turn."""
    draw, labels = random.Random(seed), sorted(WORDS)
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [
        {"text": " ".join(draw.choices(WORDS[label], k=4)), "label": label}
        for label in (labels[i % 3] for i in range(count))
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


class TinyFederation:
    """Model, records and configuration in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.model = write_model(folder / "model")
        self.train = write_records(folder / "train.jsonl", 60, seed=1)
        self.test = write_records(folder / "test.jsonl", 30, seed=2)

    def config(self, **sections: dict[str, object]) -> RunConfig:
        """Three sites, two stages of one round, seeded, no privacy; ``sections`` are laid over it."""
        tree: dict[str, object] = {
            "seed": 3,
            "model": {"path": str(self.model), "threads": 1, "max_tokens": 8},
            "adapter": {"rank": 2},
            "task": {"labels": sorted(WORDS)},
            "data": {"train": str(self.train), "test": str(self.test)},
            "sites": {"count": 3, "held_out": 0.2, "wait_seconds": 60},
            "train": {"steps": 3, "sampling_rate": 0.5, "batch_size": 8, "lr": 0.02},
            "continual": {"guards": ["ema"]},
            "stage": [{"name": "first", "rounds": 1}, {"name": "second", "rounds": 1}],
        }
        for name, section in sections.items():
            known = tree.get(name, {})
            tree[name] = {**known, **section} if isinstance(known, dict) else section
        return build(tree)

    def scenario(self, path: Path, **sections: dict[str, object]) -> Path:
        """The configuration as a scenario file."""
        path.write_text(to_toml(self.config(**sections)), encoding="utf-8")
        return path


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyFederation:
    """Made once for all tests of this folder."""
    return TinyFederation(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def quiet_flower(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, str]:
    """An environment in which Flower talks to nobody and keeps its own files under ``tmp_path``."""
    switches = {
        "FLWR_HOME": str(tmp_path / "flwr"),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
        "OMP_NUM_THREADS": "1",
    }
    for name, value in switches.items():
        monkeypatch.setenv(name, value)
    return {**os.environ, **switches}
