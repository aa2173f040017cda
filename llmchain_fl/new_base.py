"""A base made from nothing: a tokenizer trained on public texts, and weights drawn by a public seed.

A vocabulary learned from private texts is a release of them (names are rare words that become tokens), and no clip and
no noise stands before it: so the texts are public files, and those of a run's training records are refused. Tokens are
pieces of bytes (byte-level BPE, Radford et al. 2019): no text of any language is unknown.

Such a base is pre-trained without privacy on public texts, with a rank as large as its width, and exported; with
privacy it is refused (``planning/scratch.py``): under noise nothing of a language is learned from scratch at this size,
and the budget would be gone.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmchain_fl.config.schema import RunConfig
from llmchain_fl.core.data.source import path_of
from llmchain_fl.core.errors import ConfigError, DataError
from llmchain_fl.core.first_pass import first_line
from llmchain_fl.planning.scratch import MARK

MOST = 10_000_000
"""Parameters of a base that is made here."""
DECODER, ENCODER = ["<s>", "</s>"], ["[PAD]", "[CLS]", "[SEP]", "[MASK]"]


@dataclass(frozen=True)
class Shape:
    """Of a base: which way it reads, size of the vocabulary, width, layers, tokens of a text."""

    encoder: bool = False
    vocabulary: int = 2000
    width: int = 128
    layers: int = 4
    positions: int = 512

    @property
    def parameters(self) -> int:
        """About so many: tokens, and 12 widths squared a layer."""
        return self.vocabulary * self.width + 12 * self.layers * self.width**2 + self.positions * self.width

    def faults(self) -> list[str]:
        """What does not go together, one line each."""
        checks = [
            (not 300 <= self.vocabulary <= 50_000, f"--vocabulary {self.vocabulary}: 300 to 50,000"),
            (self.width % 32 != 0 or not 32 <= self.width <= 1024, f"--width {self.width}: a multiple of 32, to 1,024"),
            (not 1 <= self.layers <= 24, f"--layers {self.layers}: 1 to 24"),
            (not 16 <= self.positions <= 4096, f"--positions {self.positions}: 16 to 4,096"),
            (self.parameters > MOST, f"{self.parameters:,} parameters, at most {MOST:,}: take a base that is trained"),
        ]
        return [text for wrong, text in checks if wrong]


def new_base(folder: Path, texts: list[Path], shape: Shape, seed: int, run: RunConfig | None = None) -> int:
    """Write the base; returns its number of parameters.

    Args:
        folder: a new one.
        texts: public files, one text a line.
        shape: of the base.
        seed: of its weights.
        run: what it is for; its training records are refused as texts.

    Raises:
        ConfigError: a shape that does not fit, a folder that is there, private texts.
        DataError: a file that cannot be read, or too little text for the vocabulary.
    """
    faults = shape.faults() + [f"{file} holds training records: {_WHY}" for file in texts if _private(file, run)]
    if folder.exists() and any(folder.iterdir()):
        faults.append(f"{folder} is there and not empty: name a new folder")
    if faults:
        raise ConfigError(faults)
    tokenizer = _tokenizer(texts, shape)
    module = _module(shape, tokenizer, seed)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(folder)
    module.save_pretrained(folder)
    (folder / MARK).write_text(json.dumps({"weights": "drawn", "seed": seed}) + "\n", encoding="utf-8")
    return int(sum(value.numel() for value in module.parameters()))


_WHY = "a vocabulary learned from private texts is a release of them; give public ones"


def _private(file: Path, run: RunConfig | None) -> bool:
    sources = [] if run is None else [run.data.train, *(stage.train for stage in run.stage)]
    paths = [path for source in sources if source and (path := path_of(source)) is not None]
    return any(path.exists() and file.exists() and os.path.samefile(path, file) for path in paths)


def _lines(texts: list[Path]) -> Iterator[str]:
    for file in texts:
        try:
            with file.open(encoding="utf-8") as lines:
                yield from (line.strip() for line in lines if line.strip())
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(
                f"cannot be read: {first_line(error)}", where=str(file), remedy="give UTF-8 text"
            ) from error


def _tokenizer(texts: list[Path], shape: Shape) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    special = ENCODER if shape.encoder else DECODER
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=shape.vocabulary, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    made.train_from_iterator(_lines(texts), trainer)
    if made.get_vocab_size() < shape.vocabulary:
        raise DataError(
            f"gives {made.get_vocab_size()} tokens, not {shape.vocabulary}",
            where=str(texts[0]),
            remedy="give more text, or a lower --vocabulary",
        )
    first, last = special[int(shape.encoder)], special[1 + int(shape.encoder)]
    template = f"{first} $A {last}" if shape.encoder else f"{first} $A"
    pair = f"{template} $B:1 {last}:1"
    used = [(token, made.token_to_id(token)) for token in (first, last)]
    made.post_processor = processors.TemplateProcessing(single=template, pair=pair, special_tokens=used)
    names = (
        {"pad_token": "[PAD]", "cls_token": first, "sep_token": last, "mask_token": "[MASK]"}
        if shape.encoder
        else {"bos_token": first, "eos_token": last, "pad_token": last}
    )
    return PreTrainedTokenizerFast(tokenizer_object=made, **names)


def _module(shape: Shape, tokenizer: Any, seed: int) -> Any:
    import torch
    from transformers import BertConfig, BertModel, LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    common = {
        "vocab_size": len(tokenizer),
        "hidden_size": shape.width,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.width // 32,
        "max_position_embeddings": shape.positions,
        "pad_token_id": tokenizer.pad_token_id,
    }
    if shape.encoder:
        return BertModel(BertConfig(**common, intermediate_size=4 * shape.width))
    ends = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    return LlamaForCausalLM(LlamaConfig(**common, **ends, intermediate_size=8 * shape.width // 3 // 32 * 32))
