"""Texts in, other texts out, by an encoder with a decoder: the groups of ``decoder.py`` over two stacks.

A group's sources are padded on the right to one length and read once; then the decoder says all that it has said so far
anew for each token: no cache is kept (``core/tasks/causal_lm.py`` says why), and no row's shape follows from another.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from llmchain_fl.core.errors import ModelError
from llmchain_fl.serve.decoder import Decoder
from llmchain_fl.serve.encoder import Words

RULES = ("bad_words_ids", "begin_suppress_tokens", "encoder_no_repeat_ngram_size", "forced_bos_token_id",
         "forced_eos_token_id", "min_length", "min_new_tokens", "no_repeat_ngram_size", "num_beams",
         "repetition_penalty", "sequence_bias", "suppress_tokens")  # fmt: skip
"""Settings of ``generate`` by which another text than that of the likeliest tokens is written."""


class PairDecoder(Decoder):
    """Rows are sources; what is written begins at the decoder's own start token."""

    def __post_init__(self) -> None:
        super().__post_init__()
        config: Any = self.base.module.config
        start = getattr(config, "decoder_start_token_id", None)
        self._first = int(config.pad_token_id or 0) if start is None else int(start)

    def check(self) -> None:
        """Refuse a base that padding changes, or that ``llmchain-fl predict`` asks for more than the likeliest token.

        Raises:
            ModelError: it is one.
        """
        generation: Any = self.base.module.generation_config
        own = [name for name, value in generation.to_diff_dict().items() if name in RULES and value is not None]
        if own:
            what = f"{type(self.base.module).__name__} writes by rules of its own ({', '.join(own)})"
            raise ModelError(what, remedy="use `llmchain-fl predict`, or take them out of its generation_config.json")
        super().check()

    def _padded(self, texts: Sequence[Words], length: int) -> tuple[Tensor, Tensor]:
        ids = np.full((len(texts), length), self.base.tokenizer.pad_token_id or 0, dtype=np.int64)
        mask = np.zeros_like(ids)
        for place, text in enumerate(texts):
            ids[place, : len(text)], mask[place, : len(text)] = text, 1
        return torch.from_numpy(ids).to(self.base.device), torch.from_numpy(mask).to(self.base.device)

    def _pass(self, adapters: Sequence[int], ids: Tensor, mask: Tensor, cache: object) -> tuple[Tensor, object]:
        """(float32 [n, V] logits of the next token, (what was read, its mask, what was said))."""
        module: Any = self.base.module
        held: Any = cache
        with torch.inference_mode(), self.bank.rows(adapters):
            if cache is None:
                seen = mask.to(ids.device)
                read = module.get_encoder()(input_ids=ids, attention_mask=seen)
                said = torch.full_like(ids[:, :1], self._first)
            else:
                read, seen, said = held
                said = torch.cat([said, ids], dim=1)
            made = module(encoder_outputs=read, attention_mask=seen, decoder_input_ids=said, use_cache=False)
        return made.logits[:, -1].float(), (read, seen, said)
