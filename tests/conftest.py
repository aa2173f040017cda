"""Shared by all rooms: a tiny random BERT and a tiny random Llama, each with its own word-level tokenizer.

Both are random but not silly: weights are wide enough (std 0.2) that every token and every layer changes the output.
No test reaches a hub: everything is written to a folder of the session and read back as a user's model would be.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
settings.register_profile("house", deadline=None, max_examples=25)
settings.register_profile("thorough", deadline=None, max_examples=200)
settings.load_profile("house")

WORDS = [
    *["account", "balance", "bank", "blocked", "card", "cash", "fee", "left", "limit", "loan", "lost", "money"],
    *["new", "open", "pay", "pin", "rate", "send", "stolen", "swap", "why"],
]
LABELS = {"lost_card": "card lost stolen", "transfer": "send money pay", "rates": "rate loan fee", "other": "why"}


DRAWN = {"report", "compare"}
"""Rooms of tests that look at plots."""
NO_PLOT = '<svg width="1pt" height="1pt"></svg>'


@pytest.fixture(autouse=True, scope="module")
def _no_plots(request: pytest.FixtureRequest) -> Iterator[None]:
    """Reports without curves, a third of a short run; with ``pytestmark = pytest.mark.plots`` they are drawn."""
    room = Path(request.node.path).parent.name
    if room in DRAWN or request.node.get_closest_marker("plots"):
        yield
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("llmchain_fl.report.figure.drawn", lambda _: NO_PLOT)
        yield


@pytest.fixture(autouse=True, scope="session")
def _disk_that_does_not_flush() -> Iterator[None]:
    """Flushing decides what survives a power cut: see ``test_durable.py`` and ``test_ledger_power.py``."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.fsync", lambda descriptor: None)
        yield


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Rows of a table marked ``part(n)`` beyond n are ``thorough``."""
    tables: dict[str, list[pytest.Item]] = {}
    for item in items:
        if item.get_closest_marker("part"):
            tables.setdefault(item.nodeid.partition("[")[0], []).append(item)
    for rows in tables.values():
        marker = rows[0].get_closest_marker("part")
        count = min(len(rows), marker.args[0] if marker else 1)
        played = {round(place * (len(rows) - 1) / max(1, count - 1)) for place in range(count)}
        for place, row in enumerate(rows):
            if place not in played:
                row.add_marker(pytest.mark.thorough)


def _write_tokenizer(folder: Path, special: Mapping[str, str], template: str) -> int:
    """A word-level tokenizer; ``special``: role -> token. Returns the size of its vocabulary."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: number for number, word in enumerate([*special.values(), *WORDS])}
    made = Tokenizer(models.WordLevel(vocabulary, unk_token=special["unk_token"]))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    used = [(token, vocabulary[token]) for token in special.values() if token in template]
    made.post_processor = processors.TemplateProcessing(single=template, special_tokens=used)
    PreTrainedTokenizerFast(tokenizer_object=made, **special).save_pretrained(folder)
    return len(vocabulary)


def _write_bert(folder: Path, **more: str) -> Path:
    """``more``: special tokens beside those that every tokenizer of a BERT has here."""
    import torch
    from transformers import BertConfig, BertModel

    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", **more}
    size = _write_tokenizer(folder, special, "[CLS] $A [SEP]")
    torch.manual_seed(11)
    shape = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 48}
    config = BertConfig(vocab_size=size, max_position_embeddings=48, initializer_range=0.2, **shape)
    BertModel(config).save_pretrained(folder)
    return folder


def _write_llama(folder: Path) -> Path:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    special = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}  # no padding token, as with many decoders
    size = _write_tokenizer(folder, special, "<s> $A")
    torch.manual_seed(12)
    shape = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 48}
    config = LlamaConfig(
        vocab_size=size,
        num_key_value_heads=2,
        max_position_embeddings=96,
        initializer_range=0.2,
        attention_dropout=0.3,
        bos_token_id=1,
        eos_token_id=2,
        **shape,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def _write_shape(folder: Path, name: str) -> Path:
    """Of other architectures: those that let padding through, that mix tokens by Fourier, that share projections."""
    import torch
    import transformers as hf

    decoder = name == "gpt2"
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    if decoder:
        special = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
    size = _write_tokenizer(folder, special, "<s> $A" if decoder else "[CLS] $A [SEP]")
    told: dict[str, Any] = {"vocab_size": size, "initializer_range": 0.2, "num_hidden_layers": 3, "hidden_size": 32}
    heads = {"num_attention_heads": 4, "intermediate_size": 48, "max_position_embeddings": 48}
    thin = {"embedding_size": 16, "intra_bottleneck_size": 16, "num_feedforward_networks": 2}
    apart = {"relative_attention": True, "position_biased_input": False, "pos_att_type": ["p2c", "c2p"]}
    torch.manual_seed(13)
    made: Any = {
        "mobilebert": lambda: hf.MobileBertModel(hf.MobileBertConfig(**told, **heads, **thin)),
        "fnet": lambda: hf.FNetModel(hf.FNetConfig(**told, intermediate_size=48, max_position_embeddings=48)),
        "deberta": lambda: hf.DebertaV2Model(hf.DebertaV2Config(**told, **heads, **apart)),
        "gpt2": lambda: hf.GPT2LMHeadModel(
            hf.GPT2Config(**told, num_attention_heads=4, n_inner=48, n_positions=96, bos_token_id=1, eos_token_id=2)
        ),
    }[name]()
    made.save_pretrained(folder)
    return folder


def _write_pair(folder: Path, name: str) -> Path:
    """An encoder with a decoder, of unlike depth where that can be."""
    import torch
    import transformers as hf

    special = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    ends = {"vocab_size": _write_tokenizer(folder, special, "$A </s>"), "pad_token_id": 0, "eos_token_id": 2}
    heads = {"encoder_attention_heads": 4, "decoder_attention_heads": 4, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48}
    told: dict[str, Any] = {**heads, "d_model": 32, "encoder_layers": 2, "init_std": 0.2, "max_position_embeddings": 96}
    told |= {**ends, "bos_token_id": 1, "forced_eos_token_id": None}
    torch.manual_seed(14)
    made: Any = {
        "t5": lambda: hf.T5ForConditionalGeneration(
            hf.T5Config(
                **{**ends, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_heads": 4},
                num_layers=2,
                num_decoder_layers=3,
                feed_forward_proj="gated-gelu",
                decoder_start_token_id=0,
                tie_word_embeddings=False,
            )
        ),
        "bart": lambda: hf.BartForConditionalGeneration(
            hf.BartConfig(**told, decoder_layers=3, decoder_start_token_id=2)
        ),
        "marian": lambda: hf.MarianMTModel(hf.MarianConfig(**told, decoder_layers=2, decoder_start_token_id=0)),
    }[name]()
    made.save_pretrained(folder)
    return folder


class Small:
    """The two models, and short ways to the parts of the project over them."""

    labels = LABELS
    words = tuple(WORDS)

    def __init__(self, folder: Path) -> None:
        import torch

        torch.set_num_threads(1)  # more of them only wait for each other on models of this size
        self.bert = _write_bert(folder / "bert")
        self.llama = _write_llama(folder / "llama")
        self._folder = folder

    def shape(self, name: str) -> Path:
        """A tiny random model of an architecture: bert, llama, mobilebert, fnet, deberta, gpt2, t5, bart, marian; or a
        bert with a mask."""
        if name in ("bert", "llama"):
            return self.bert if name == "bert" else self.llama
        folder = self._folder / name
        if name == "masked":
            return folder if folder.exists() else _write_bert(folder, mask_token="[MASK]")
        write = _write_pair if name in ("t5", "bart", "marian") else _write_shape
        return folder if folder.exists() else write(folder, name)

    def base(self, kind: str = "encoder", **changes: Any) -> Any:
        """``BaseSpec`` of the tiny model of this kind, on the CPU."""
        from llmchain_fl.core.base_model import BaseSpec

        path = str(self.bert if kind == "encoder" else self.llama)
        return BaseSpec(**{"path": path, "device": "cpu", "kind": kind, **changes})

    def work(
        self,
        kind: str = "classification",
        *,
        head: str = "label-text",
        trained: Sequence[str] = ("lora_A", "lora_B"),
        last_layers: int = 0,
        targets: Sequence[str] = ("all-linear",),
        cache_mb: int = 0,
        rank: int = 3,
        max_tokens: int = 16,
        pooling: str = "mean",
        train: Mapping[str, Any] | None = None,
        guards: Sequence[Any] = (),
        plan: Any = None,
        features: int = 0,
        windows: int = 1,
        variant: str = "lora",
        path: str = "",
    ) -> Any:
        """A ``WorkSpec`` over a tiny model; ``variant``: all that one trains, unless it is LoRA."""
        from llmchain_fl.core.adapter.value import AdapterSpec
        from llmchain_fl.core.adapter.variants import VARIANTS
        from llmchain_fl.core.tasks.kind import task_kind
        from llmchain_fl.core.tasks.spec import TaskSpec
        from llmchain_fl.core.work import TrainSpec, WorkSpec

        if kind == "masked-lm" and not path:
            path = str(self.shape("masked"))
        labels = tuple(LABELS.items()) if task_kind(kind).named else ()
        if not VARIANTS[variant].product:
            trained = VARIANTS[variant].trained
        loop = {
            "steps": 3,
            "sampling_rate": 0.5,
            "batch_size": 4.0,
            "micro_batch": 4,
            "optimizer": "adam",
            "momentum": 0.9,
            "seed": 1,
        }
        return WorkSpec(
            base=self.base(task_kind(kind).base_kind, **({"path": path} if path else {})),
            adapter=AdapterSpec(rank, 2.0 * rank, tuple(targets), last_layers, tuple(trained), 5, variant),
            task=TaskSpec(
                kind,
                head,
                labels,
                20.0,
                pooling,
                max_tokens,
                features=features,
                feature_seed=9,
                windows=windows,
                template="plain",
            ),
            train=TrainSpec(**{**loop, **(train or {})}),
            guards=tuple(guards),
            plan=plan,
            cache_mb=cache_mb,
        )

    def task(self, kind: str = "classification", *, moved: float = 0.3, **settings: Any) -> Any:
        """A task over a tiny model whose adapter has moved: every array, ``lora_B`` too, gets noise of this size."""
        import torch

        from llmchain_fl.core.work import open_work

        work = self.work(kind, **settings)
        resident, task = open_work(work.resident, work.task)
        resident.reset()
        draw = torch.Generator().manual_seed(3)
        resident.theta += moved * torch.randn(resident.theta.shape, generator=draw)
        return task

    def rows(self, count: int, kind: str = "classification", seed: int = 1) -> list[dict[str, str]]:
        """Made-up records of 1 to 9 words."""
        draw = random.Random(seed)

        def words() -> str:
            return " ".join(draw.choices(WORDS, k=draw.randint(1, 9)))

        if kind == "classification":
            return [{"text": words(), "label": draw.choice(list(LABELS))} for _ in range(count)]
        if kind == "plain-text":
            return [{"text": words()} for _ in range(count)]
        return [{"prompt": words(), "answer": words()} for _ in range(count)]

    def record(self, kind: str, words: int, seed: int = 1) -> dict[str, str]:
        """A made-up record of so many words for any kind of task."""
        from llmchain_fl.core.tasks.kind import task_kind

        draw = random.Random(f"{seed}/{words}")
        return task_kind(kind).made_up_row(" ".join(draw.choices(WORDS, k=words)), draw.choice(list(LABELS)))

    def plan(self, work: Any = None, **changes: Any) -> Any:
        """A privacy plan that fits the loop of ``work`` (by default the loop of ``self.work()``)."""
        from llmchain_fl.core.privacy.plan import PrivacyPlan

        train = (work or self.work()).train
        told = {
            "sampling_rate": train.sampling_rate,
            "steps_per_round": train.steps,
            "divisor": train.batch_size,
            "noise_multiplier": 1.0,
            "clip_norm": 1.0,
            "delta": 1e-5,
            "unit": "record",
        }
        return PrivacyPlan(**{**told, **changes})

    @staticmethod
    def fixed(examples: Any, rows: int = 4, longest: int = 16) -> Any:
        """``examples``, passed in a fixed shape from here on, as every private step asks."""
        from llmchain_fl.core.tasks.passes import Shape

        examples.fix(Shape(rows, longest))
        return examples

    @staticmethod
    def units(index: Sequence[int]) -> list[Any]:
        """A batch in which each record is a unit."""
        import numpy as np

        return [np.array([int(i)]) for i in index]


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Small:
    """The tiny models; see ``Small``."""
    return Small(tmp_path_factory.mktemp("small"))
