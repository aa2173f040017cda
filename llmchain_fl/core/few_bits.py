"""A frozen base of 8 or 4 bits a weight, by bitsandbytes (an extra); adapter, gradients and noise stay float32.

=========  =========================================  ====================================================
dtype      weights                                    a layer's activations
=========  =========================================  ====================================================
``int8``   8 bits, one scale an output (LLM.int8,     8 bits, one scale a token; in training on a CPU
           Dettmers et al. 2022, arXiv 2208.07339)    float32
``nf4``    4 bits, one scale for 64 (QLoRA, Dettmers  float32
           et al. 2023, arXiv 2305.14314)
=========  =========================================  ====================================================

LLM.int8 computes the columns in which *any token of the batch* is large in higher precision: which numbers a record
gets would then depend on its neighbours, and one person's bound would be gone. So the threshold is 0 here: no such
columns, every token is scaled by itself. What that costs in accuracy is the user's to measure.
"""

from __future__ import annotations

import importlib.util
from typing import Any

import torch

from llmchain_fl.core.errors import ModelError


def options(dtype: str, device: torch.device) -> dict[str, Any]:
    """What ``from_pretrained`` is told.

    Raises:
        ModelError: bitsandbytes is not installed.
    """
    if importlib.util.find_spec("bitsandbytes") is None:
        raise ModelError(
            f'model.dtype = "{dtype}": bitsandbytes is not installed', remedy="pip install 'llmchain-fl[few-bits]'"
        )
    from transformers import BitsAndBytesConfig

    settings: dict[str, Any] = {"load_in_8bit": True, "llm_int8_threshold": 0.0}
    if dtype == "nf4":
        settings = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_compute_dtype": torch.float32}
    return {
        "dtype": torch.float32,
        "quantization_config": BitsAndBytesConfig(**settings),
        "device_map": {"": str(device)},
    }
