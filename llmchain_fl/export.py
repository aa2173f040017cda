"""An adapter in forms that others read: merged into its base, or as a plain peft folder.

==========  ===========================================  ===========================================================
form        the folder                                   reads it
==========  ===========================================  ===========================================================
``merged``  W0 + s B A as safetensors, with tokenizer    transformers, and whatever reads its folders
``peft``    adapter_config.json and its tensors alone    peft, vLLM, llama.cpp's converter
==========  ===========================================  ===========================================================

A trained head or label texts are no part of either model: ``head.safetensors`` and ``work.json`` go along with a merged
encoder, for whoever computes labels (``docs/hub.md``).

What those readers ask for, as their sources have it: vLLM's ``lora/peft_helper.py`` needs ``r``, ``lora_alpha``,
``target_modules``, of which the last part names a layer, and takes no ``modules_to_save`` and no DoRA; a rank above
``max_lora_rank`` is refused there.
llama.cpp's ``convert_lora_to_gguf.py`` takes away ``base_model.model.`` and ``.lora_A.weight`` or ``.lora_B.weight``
from a name; what is left, with ``.weight``, must be a tensor of the base, A [r, d_in], B [d_out, r].
"""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from llmchain_fl.atomic_file import write_json
from llmchain_fl.core.errors import ConfigError, ModelError

if TYPE_CHECKING:
    from torch import Tensor, nn

FORMS = ("merged", "peft")
MOST_RANK = 64
"""Above it vLLM needs another build option than its usual ones."""
CLOSE = 1e-5
"""Largest difference of an output, relative to the largest of them, in float32."""
PROBE = 24
"""Tokens of the text that both models are compared on."""
SIDES = ("head.safetensors", "work.json")
_CLOSE: Mapping[str, float] = MappingProxyType({"float32": CLOSE, "bfloat16": 0.05, "float16": 0.01})


@dataclass(frozen=True)
class Exported:
    """What was written, and the largest relative difference of an output from the adapter's (0 for a copy)."""

    folder: Path
    difference: float


def export(adapter: Path, out: Path, form: str, *, base: str = "", most_rank: int = MOST_RANK) -> Exported:
    """Write an adapter in one of ``FORMS``.

    ====================================================  =================================================
    adapter                                               then
    ====================================================  =================================================
    a text chooses among slots                            ModelError: neither form can choose
    a layer whose weight is another's too (tied)          ModelError for ``merged``: both would change
    embeddings tied to the output layer                   stay tied and untouched: no adapter changes them
    rank above ``most_rank``                              ModelError for ``peft``
    outputs that differ by more than ``CLOSE``            ModelError for ``merged``, nothing is kept
    ====================================================  =================================================

    Args:
        adapter: a folder with ``work.json``.
        out: a folder that is not there yet.
        form: one of ``FORMS``.
        base: the base model's folder; "" as the adapter names it.
        most_rank: of ``peft``.

    Raises:
        ConfigError: another form, or ``out`` is there.
        ModelError: see the table; the adapter or its base cannot be read.
    """
    from llmchain_fl.adapter.files import read_adapter
    from llmchain_fl.adapter.slots_file import read_slots

    if form not in FORMS or out.exists():
        fault = f"--as {form!r}: one of {', '.join(FORMS)}" if form not in FORMS else f"{out} is there already"
        raise ConfigError([fault], remedy="nothing was written")
    work, arrays = read_adapter(adapter)
    slots = read_slots(adapter, arrays)
    if slots is not None and slots.route:
        raise ModelError("each text chooses among slots, which no other format can say", remedy="serve it with predict")
    draft = out.with_name(f".{out.name}.draft")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    try:
        if form == "peft":
            difference = _plain(adapter, draft, work.adapter.rank, most_rank)
        else:
            difference = _merged(adapter, draft, base or work.base.path, work.base.kind, work.base.dtype)
        draft.rename(out)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return Exported(out, difference)


def _plain(adapter: Path, out: Path, rank: int, most: int) -> float:
    """The two files of peft, with a whole alpha as a whole number."""
    if rank > most:
        raise ModelError(f"rank {rank}, at most {most}", remedy="allow it with --most-rank, if the reader does")
    config = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
    alpha = float(config["lora_alpha"])
    config["lora_alpha"] = int(alpha) if alpha.is_integer() else alpha
    write_json(out / "adapter_config.json", config)
    shutil.copyfile(adapter / "adapter_model.safetensors", out / "adapter_model.safetensors")
    return 0.0


def _merged(adapter: Path, out: Path, place: str, kind: str, dtype: str) -> float:
    import torch
    from peft import PeftModel
    from transformers import AutoTokenizer

    from llmchain_fl.core.base_model import locate

    path = locate(place).path
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tokenizer, bare = AutoTokenizer.from_pretrained(path), _model(kind, path, dtype)
        model = PeftModel.from_pretrained(bare, str(adapter)).eval()
        _check_tied(model)
        size = int(model.config.vocab_size)
        ids = torch.arange(PROBE)[None] * 7919 % size
        wanted = _outputs(model, ids)
        model.merge_and_unload(safe_merge=True).save_pretrained(out, safe_serialization=True)
        tokenizer.save_pretrained(out)
        again = _outputs(_model(kind, str(out), dtype), ids)
    difference = float((again - wanted).abs().max() / wanted.abs().max().clamp_min(1e-12))
    if not difference <= _CLOSE[dtype]:
        message = f"merged, an output differs by {difference:.1e} of the largest; at most {_CLOSE[dtype]:.0e}"
        raise ModelError(message, remedy="export it as peft, or merge in float32")
    for name in SIDES:
        if (adapter / name).is_file():
            shutil.copyfile(adapter / name, out / name)
    return difference


def _model(kind: str, place: str, dtype: str) -> Any:
    import torch
    from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoModelForSeq2SeqLM

    two = AutoConfig.from_pretrained(place).is_encoder_decoder
    reader = AutoModelForSeq2SeqLM if two else AutoModel if kind == "encoder" else AutoModelForCausalLM
    return reader.from_pretrained(place, dtype=getattr(torch, dtype), trust_remote_code=False).eval()


def _outputs(model: Any, ids: Tensor) -> Tensor:
    """Logits, or the vectors of an encoder."""
    import torch

    from llmchain_fl.core.first_pass import computed

    with torch.no_grad():
        outputs = computed(model, ids, torch.ones_like(ids))
    value: Tensor = outputs.logits if "logits" in outputs else outputs.last_hidden_state
    return value.float()


def _check_tied(model: nn.Module) -> None:
    """Refuse an adapted weight that is another module's as well.

    Raises:
        ModelError: there is one.
    """
    owners: dict[int, set[str]] = {}
    for name, value in model.named_parameters(remove_duplicate=False):
        owners.setdefault(id(value), set()).add(name)
    tied = [sorted(names) for names in owners.values() if len(names) > 1]
    adapted = [names for names in tied if any(".base_layer." in name for name in names)]
    shared = [names for names in adapted if not all(".base_layer." in name for name in names)]
    if shared:
        message = f"{shared[0][0]} and {shared[0][1]} are one weight: merged, both would change"
        raise ModelError(message, remedy="export it as peft")
