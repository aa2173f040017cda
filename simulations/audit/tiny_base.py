"""A tiny random BERT with a tokenizer of its own, written to a temporary folder: a base that is always there.

Random but not silly: weights are wide enough (std 0.2) that every token and every layer changes the output. It is wider
than it has words and positions, so that a server could tell padding from text by a direction (``hostile_arrays.py``).
It is read back as a user's model would be; no hub is asked.
"""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path

import torch

WORDS = (
    *("account", "balance", "bank", "blocked", "card", "cash", "fee", "left", "limit", "loan", "lost", "money"),
    *("new", "open", "pay", "pin", "rate", "send", "stolen", "swap", "why"),
)
LABELS = (("lost_card", "card lost stolen"), ("transfer", "send money pay"), ("rates", "rate loan fee"))
POSITIONS = 48
WIDE, NARROW = 64, 48
"""Width of the hidden states: the usual one, and one at which machines were seen to round rows unlike unnoticed."""
SEED = 11


@functools.lru_cache(maxsize=4)
def tiny_base(width: int = WIDE) -> Path:
    """The model's folder: the same in the whole process, gone when it ends."""
    return _write(Path(_kept().name) / str(width), width)


@functools.lru_cache(maxsize=1)
def _kept() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="gate-base-")


def _write(folder: Path, width: int) -> Path:
    from transformers import BertConfig, BertModel
    from transformers.utils import logging as hf_logging

    hf_logging.disable_progress_bar()
    size = _write_tokenizer(folder)
    shape = {
        "hidden_size": width,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 3 * width // 2,
    }
    before = torch.get_rng_state()
    torch.manual_seed(SEED)
    config = BertConfig(vocab_size=size, max_position_embeddings=POSITIONS, initializer_range=0.2, **shape)
    BertModel(config).save_pretrained(folder)
    torch.set_rng_state(before)
    return folder


def _write_tokenizer(folder: Path) -> int:
    """A word is a token. Returns the size of the vocabulary."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    vocabulary = {word: number for number, word in enumerate([*special.values(), *WORDS])}
    made = Tokenizer(models.WordLevel(vocabulary, unk_token=special["unk_token"]))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    ends = [(token, vocabulary[token]) for token in ("[CLS]", "[SEP]")]
    made.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    PreTrainedTokenizerFast(tokenizer_object=made, **special).save_pretrained(folder)
    return len(vocabulary)
