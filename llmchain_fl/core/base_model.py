"""The frozen base model: by known name, local directory or hub id; offline first; loaded once per process."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from llmchain_fl.core.errors import ModelError
from llmchain_fl.core.first_pass import TEXT_BASES, TWO_STACKS, first_line, first_pass, has_two_stacks, text_config
from llmchain_fl.core.plugins import Named
from llmchain_fl.core.ranges import Bound, range_faults

if TYPE_CHECKING:
    from llmchain_fl.core.remembered import Remembered

DTYPES = MappingProxyType({"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16})
REMEMBERED: Named[Callable[[], Remembered]] = Named({"outputs": "llmchain_fl.core.remembered:Remembered"})
FEW_BITS = ("int8", "nf4")
"""Number types of the frozen weights that bitsandbytes brings (``few_bits.py``)."""
KNOWN: Named[Callable[[], Located]] = Named(
    {
        "minilm": "llmchain_fl.core.known_bases:minilm",
        "e5": "llmchain_fl.core.known_bases:e5",
        "smollm2": "llmchain_fl.core.known_bases:smollm2",
        "stories": "llmchain_fl.core.known_bases:stories",
    }
)
"""Bases by a name of their own -> where each is read from."""
GGUF: Named[Callable[[str], dict[str, Any]]] = Named({"options": "llmchain_fl.core.known_bases:gguf_options"})


@dataclass(frozen=True)
class BaseSpec:
    """What names one frozen base. ``kind``: one of ``BASE_KINDS`` (``tasks/kind.py``)."""

    path: str
    revision: str = ""
    dtype: str = "float32"
    device: str = "auto"
    kind: str = "encoder"

    def faults(self) -> list[str]:
        """Fields outside their bounds, one line each."""
        faults = range_faults(self, _BOUNDS)
        if not all(len(text) <= 1000 and text.isprintable() for text in (self.path, self.revision)) or not self.path:
            faults.append("path and revision: printable, at most 1,000 characters, and a path")
        return faults


_BOUNDS: Mapping[str, Bound] = MappingProxyType(
    {"dtype": (*DTYPES, *FEW_BITS), "device": ("auto", "cpu", "cuda"), "kind": ("encoder", "causal-lm", "generator")}
)


@dataclass(frozen=True)
class Located:
    """Where a base is read from, and the name by which others can find the same base. ``file``: one of weights and all,
    in the format GGUF; empty: a folder as ``save_pretrained`` writes it."""

    path: str
    public_name: str
    local: bool
    file: str = ""


@dataclass(frozen=True)
class Base:
    """A loaded base: the module (frozen, no dropout), its tokenizer, its device.

    Attributes:
        hidden_size: width of what it gives for a token.
        sees_ahead: whether what it gives for a token depends on later tokens; None: not tried.
    """

    module: nn.Module
    tokenizer: Any
    device: torch.device
    public_name: str
    hidden_size: int
    sees_ahead: bool | None = None

    @functools.cached_property
    def remembered(self) -> Remembered:
        """Outputs of its frozen layers that runs over it share; empty unless somebody asks for it."""
        return REMEMBERED["outputs"]()

    @property
    def two_stacks(self) -> bool:
        """Whether it is an encoder with a decoder."""
        return has_two_stacks(self.module)


def locate(path: str) -> Located:
    """Known name, existing directory, or hub id (``org/name`` or ``name``).

    Raises:
        ModelError: it looks like a path but no such directory exists, or the directory holds no model.
    """
    if path in KNOWN:
        return KNOWN[path]()
    folder = Path(path)
    if path and os.path.isdir(path):
        if not (folder / "config.json").is_file():
            raise ModelError(
                f"{path} has no config.json", remedy="model.path must be a directory written by save_pretrained"
            )
        return Located(str(folder), path, local=True)
    if not path or path.startswith((".", "/", "~")) or path.count("/") > 1 or os.path.isfile(path):
        raise ModelError(
            f"model.path = {path!r}: there is no such directory",
            remedy=f"give a model directory, a hub id (org/name) or a known name ({', '.join(KNOWN)})",
        )
    return Located(path, path, local=False)


def choose_device(device: str) -> torch.device:
    """``auto`` -> CUDA if there is one, else CPU.

    Raises:
        ModelError: ``cuda`` was asked for and there is none, or something else than auto, cpu, cuda.
    """
    if device not in ("auto", "cpu", "cuda"):
        raise ModelError(f"model.device = {device!r} is not known", remedy='set model.device = "auto", "cpu" or "cuda"')
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device == "cuda" and not torch.cuda.is_available():
        raise ModelError(
            'model.device = "cuda": torch sees no CUDA device here', remedy='set model.device = "auto" or "cpu"'
        )
    return torch.device(device)


@functools.lru_cache(maxsize=1)
def load_base(spec: BaseSpec) -> Base:
    """Load and freeze; the same spec in the same process gives the same object (one base in memory).

    Dropout is switched off in the base: its weights are frozen, and the outputs of frozen layers can then be kept.

    Raises:
        ModelError: not found, not readable, remote code asked for, no tokenizer, an encoder with a decoder, or a model
            that cannot compute from token ids alone.
    """
    if spec.dtype not in (*DTYPES, *FEW_BITS):
        known = ", ".join((*DTYPES, *FEW_BITS))
        raise ModelError(f"model.dtype = {spec.dtype!r} is not known", remedy=f"set it to one of {known}")
    located = locate(spec.path)
    device = choose_device(spec.device)
    options: dict[str, Any] = {"trust_remote_code": False, **(GGUF["options"](located.file) if located.file else {})}
    if spec.revision and not located.local:
        options["revision"] = spec.revision
    try:
        with _offline_if(located.local):
            module, tokenizer = _read(located.path, spec, options)
        _without_dropout(module)
        module.config.use_cache = text_config(module).use_cache = False  # no key-value cache while training
        (module if spec.dtype in FEW_BITS else module.to(device)).requires_grad_(False)
    except ModelError:
        raise
    except Exception as error:
        raise ModelError(
            f"model.path = {spec.path!r} cannot be loaded: {first_line(error)}",
            remedy="check the directory; without a hub connection give a local directory (made by save_pretrained)",
        ) from error
    width, sees_ahead = first_pass(module, spec.path, spec.kind)
    return Base(module, tokenizer, device, located.public_name, width, sees_ahead)


def _without_dropout(module: Any) -> None:
    """Dropout is a module in some architectures, and in others a plain number that attention or a router reads."""
    for part in module.modules():
        if isinstance(part, nn.Dropout):
            part.p = 0.0
    for holder in (module.config, *module.modules()):
        for name, value in list(vars(holder).items()):
            if ("drop" in name or "jitter" in name) and isinstance(value, float):
                setattr(holder, name, 0.0)


def _read(path: str, spec: BaseSpec, options: dict[str, Any]) -> tuple[Any, Any]:
    from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer

    two = bool(getattr(AutoConfig.from_pretrained(path, **options), "is_encoder_decoder", False))
    if two and spec.kind != "generator":
        raise ModelError(
            f"model.path = {spec.path!r} is an encoder with a decoder, which this kind of task has no use for",
            remedy="it summarises and translates; to classify use an encoder (BERT, RoBERTa, ...), else a decoder",
        )
    loader = AutoModelForSeq2SeqLM if two else AutoModel if spec.kind == "encoder" else AutoModelForCausalLM
    module = loader.from_pretrained(path, use_safetensors=True, **weight_options(spec), **options)
    try:
        tokenizer = AutoTokenizer.from_pretrained(path, **options)
    except Exception as error:  # its library raises bare ones
        raise ModelError(
            f"model.path = {spec.path!r}: its tokenizer cannot be loaded: {first_line(error)}",
            remedy="put the base's tokenizer files into its folder (tokenizer.save_pretrained)",
        ) from error
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return module, tokenizer


def weight_options(spec: BaseSpec) -> dict[str, Any]:
    """What ``from_pretrained`` is told of the number type.

    Raises:
        ModelError: of few bits, and what reads them is not installed.
    """
    if spec.dtype in DTYPES:
        return {"dtype": DTYPES[spec.dtype]}
    few: Callable[..., dict[str, Any]] = Named({"options": "llmchain_fl.core.few_bits:options"})["options"]
    return few(spec.dtype, choose_device(spec.device))


@contextmanager
def _offline_if(local: bool) -> Iterator[None]:
    """Quiet loading; for a local directory also no look at the hub (``HF_HUB_OFFLINE``), restored afterwards."""
    from transformers.utils import logging as hf_logging

    before, verbosity = os.environ.get("HF_HUB_OFFLINE"), hf_logging.get_verbosity()
    if local:
        os.environ["HF_HUB_OFFLINE"] = "1"
    hf_logging.set_verbosity_error()
    hf_logging.disable_progress_bar()
    try:
        yield
    finally:
        hf_logging.set_verbosity(verbosity)
        if before is None:
            os.environ.pop("HF_HUB_OFFLINE", None)
        else:
            os.environ["HF_HUB_OFFLINE"] = before


def layer_stacks(module: nn.Module) -> list[tuple[str, nn.ModuleList]]:
    """Every stack of transformer layers: one, or of an encoder with a decoder the encoder's and the decoder's.

    Raises:
        ModelError: see ``layer_stack``.
    """
    return TWO_STACKS["stacks"](module, TEXT_BASES) if has_two_stacks(module) else [layer_stack(module)]


def layer_stack(module: nn.Module) -> tuple[str, nn.ModuleList]:
    """Name and list of the transformer layers: of the lists of ``num_hidden_layers`` blocks the one with most weights.

    Of an encoder with a decoder: the encoder's, which reads a text first.

    Where there is none the largest shorter list: layers that share their weights (ALBERT) stand in it once.

    Raises:
        ModelError: none found (an architecture without such a list).
    """
    if has_two_stacks(module):
        return layer_stacks(module)[0]
    wanted = int(getattr(text_config(module), "num_hidden_layers", 0))
    lists = [
        (name, part)
        for name, part in module.named_modules()
        if isinstance(part, nn.ModuleList) and 0 < len(part) <= wanted and all([*block.children()] for block in part)
    ]
    if not lists:
        raise ModelError(f"{type(module).__name__} has no list of {wanted} equal transformer layers", remedy=TEXT_BASES)
    weights = [sum(weight.numel() for weight in part.parameters()) for _, part in lists]
    return lists[max(range(len(lists)), key=lambda place: (len(lists[place][1]) == wanted, weights[place]))]
