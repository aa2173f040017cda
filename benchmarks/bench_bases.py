"""Which base models can be adapted, and how: a tiny random one of each architecture, opened as a site opens it.

    python benchmarks/bench_bases.py [ARCHITECTURE ...]

Prints a row for each architecture and kind: adapted or refused (and why), records in a private pass, whether outputs of
frozen layers are kept. ``tests/bases`` runs the same table.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch

from client.per_sample import PerSample
from client.steady import known_ids, made_up_records, shape_for
from llmchain_fl.core.adapter.resident import ResidentSpec
from llmchain_fl.core.adapter.value import AdapterSpec
from llmchain_fl.core.base_model import BaseSpec
from llmchain_fl.core.errors import LlmchainError
from llmchain_fl.core.tasks.spec import TaskSpec
from llmchain_fl.core.work import open_work

E, C = "encoder", "causal-lm"
WORDS = [f"w{i}" for i in range(50)]
SHAPE: Mapping[str, Any] = {
    "vocab_size": 60,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
BASES: dict[str, tuple[tuple[str, ...], Mapping[str, Any]]] = {}
"""Architecture -> (kinds it is tried as, what its configuration has beside ``SHAPE``; None: not this one)."""


def _add(kinds: tuple[str, ...], names: str, **more: Any) -> None:
    BASES.update(dict.fromkeys(names.split(), (kinds, more)))


_add((E, C), "bert")
_add((E,), "roberta xlm-roberta electra mpnet roformer rembert camembert ernie megatron-bert layoutlm xlm-roberta-xl")
_add((E,), "roberta-prelayernorm convbert fnet esm data2vec-text modernbert nystromformer eurobert bert-generation")
_add((E,), "albert", embedding_size=8)
_add((E,), "distilbert", hidden_dim=24)
_add((E,), "deberta", relative_attention=True, pos_att_type=["c2p", "p2c"], position_biased_input=False)
_add((E,), "deberta-v2", relative_attention=True, pos_att_type=["c2p", "p2c"], share_att_key=True, position_buckets=8)
_add((E,), "mobilebert", embedding_size=8, intra_bottleneck_size=8, num_feedforward_networks=1)
_add((E,), "longformer", attention_window=4)
_add((E,), "big_bird", attention_type="original_full")
_add((E,), "xlm flaubert", emb_dim=16, n_heads=2, n_layers=2)
_add(
    (E,),
    "funnel",
    num_hidden_layers=None,
    block_sizes=[1, 1],
    d_model=16,
    d_head=8,
    n_head=2,
    d_inner=24,
    architectures=["FunnelModel"],
)
_add((E, C), "xlnet", max_position_embeddings=None, d_inner=24, d_head=8)
_add((C, E), "gpt2")
_add((C, E), "llama", num_key_value_heads=1)
_add((C,), "gpt_neox biogpt openai-gpt bloom gpt_bigcode falcon gptj", rotary_dim=4)
_add((C,), "gpt_neo", attention_types=[[["global", "local"], 1]], window_size=4)
_add((C,), "codegen", num_attention_heads=4, rotary_dim=4)
_add((C,), "ctrl", dff=24)
_add((C,), "xglm", attention_heads=2, ffn_dim=24, num_layers=2, d_model=16)
_add((C, E), "opt", ffn_dim=24, word_embed_proj_dim=12)
_add((C,), "mpt", d_model=16, n_heads=2, n_layers=2, max_seq_len=64, expansion_ratio=2)
_add((C,), "mistral qwen2 qwen3 gemma gemma2 gemma3_text phi phi3 stablelm olmo", num_key_value_heads=1, head_dim=8)
_add((C,), "olmo2 cohere granite starcoder2 persimmon smollm3 helium nemotron glm", num_key_value_heads=1, head_dim=8)
_add((C,), "lfm2", num_key_value_heads=1, layer_types=["conv", "full_attention"])
_EXPERTS: Mapping[str, Any] = {"num_key_value_heads": 1, "num_experts_per_tok": 2, "moe_intermediate_size": 8}
_add((C,), "mixtral", **_EXPERTS, num_local_experts=4)
_add((C,), "qwen2_moe qwen3_moe olmoe", **_EXPERTS, num_experts=4, shared_expert_intermediate_size=8)
_add((C,), "gpt_oss", **_EXPERTS, num_local_experts=4, head_dim=8, sliding_window=4)
_LATENT: Mapping[str, Any] = {"kv_lora_rank": 4, "q_lora_rank": 4, "qk_rope_head_dim": 4, "qk_nope_head_dim": 4}
_add(
    (C,),
    "deepseek_v3",
    **{**_EXPERTS, "num_key_value_heads": 2},
    **_LATENT,
    v_head_dim=8,
    n_routed_experts=4,
    n_group=1,
    topk_group=1,
)
_add(
    (C,),
    "jamba",
    **_EXPERTS,
    num_experts=2,
    mamba_d_state=4,
    attn_layer_period=2,
    attn_layer_offset=1,
    use_mamba_kernels=False,
)
_add((C,), "recurrent_gemma", lru_width=16, attention_window_size=4, block_types=["recurrent", "attention"])
_add((C,), "rwkv", attention_hidden_size=16)
_add((C,), "mamba falcon_mamba", state_size=4, time_step_rank=4)
_add((C,), "mamba2", state_size=4, num_heads=4, head_dim=8, n_groups=1, chunk_size=8)
_groups = ("q_groups", "k_groups", "v_groups", "post_attention_groups", "intermediate_groups", "output_groups")
_add((E,), "squeezebert", embedding_size=16, **dict.fromkeys(_groups, 1))
_add((E,), "ibert xmod canine")
_add((E,), "t5 mt5 umt5", d_model=16, num_layers=2, num_heads=2, d_kv=8, d_ff=24, decoder_start_token_id=0)
_add((E, C), "bart", d_model=16, encoder_layers=2, decoder_layers=2, encoder_ffn_dim=24, decoder_ffn_dim=24)


def write_base(folder: Path, name: str, kind: str) -> Path:
    """A tiny random base of this architecture with a word-level tokenizer, as ``save_pretrained`` writes it."""
    import transformers as hf
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    hf.logging.set_verbosity_error()
    hf.utils.logging.disable_progress_bar()
    special = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    vocabulary = {word: number for number, word in enumerate([*special.values(), *WORDS, "yes", "no"])}
    made = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    hf.PreTrainedTokenizerFast(tokenizer_object=made, **special).save_pretrained(folder)
    told = {key: value for key, value in {**SHAPE, **BASES[name][1]}.items() if value is not None}
    torch.manual_seed(0)
    loader = hf.AutoModelForCausalLM if kind == C else hf.AutoModel
    module = loader.from_config(hf.AutoConfig.for_model(name, **told))
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.dim() > 1:  # wide enough that every token and every layer changes the output
                parameter.normal_(0, 0.2)
    module.save_pretrained(folder)
    return folder


@dataclass(frozen=True)
class Verdict:
    """What became of one base.

    Attributes:
        refused: why it cannot be adapted, or not privately; empty: it can.
        rows: records in a private pass; 0: none.
        far: largest difference of a record's private gradient from autograd's, over the largest entry of that array.
        kept: whether outputs of frozen layers are kept with ``last_layers = 1``.
        kept_far: largest difference of a loss or gradient with them from one without.
    """

    refused: str = ""
    rows: int = 0
    far: float = 0.0
    kept: bool = False
    kept_far: float = 0.0


def verdict(folder: Path, kind: str, rows: int = 3) -> Verdict:
    """Open the base as a site does, with all linear layers and with the last one."""
    try:
        resident, task = _opened(folder, kind, AdapterSpec(2, 4.0))
        shape = shape_for(resident, task, 16, rows)
    except LlmchainError as error:
        return Verdict(refused=str(error))
    examples = made_up_records(known_ids(resident), [5, 6, 7][: shape.rows])
    examples.fix(shape)
    alone = [_gradients(resident, task, examples, [i]) for i in range(len(examples))]
    private = PerSample(resident, shape.rows)
    found = private.rows(
        len(examples), lambda: task.losses(task.forward(examples, range(len(examples)))).sum().backward()
    )
    private.close()
    far = max(
        apart(found[row, private.slices[name]], gradient.reshape(-1), max(map(largest, gradients)))
        for row, gradients in enumerate(alone)
        for name, gradient in zip(resident.trained_names, gradients, strict=True)
    )
    try:
        kept = [_last(folder, kind, cache_mb) for cache_mb in (0, 16)]
    except LlmchainError as error:
        return Verdict(f"last_layers = 1: {error}", shape.rows, far)
    return Verdict(
        "", shape.rows, far, kept[1][0], max(apart(*pair) for pair in zip(*(k[1] for k in kept), strict=True))
    )


def largest(values: torch.Tensor) -> float:
    """Largest entry."""
    return float(values.abs().max())


def apart(one: torch.Tensor, other: torch.Tensor, around: float = 0.0) -> float:
    """Largest difference over the largest entry, at least a hundredth of ``around``."""
    return largest(one - other) / max(largest(other), around / 100, 1e-6)


def _opened(folder: Path, kind: str, adapter: AdapterSpec, cache_mb: int = 0) -> tuple[Any, Any]:
    task = TaskSpec("classification", labels=(("yes", "yes"), ("no", "no")), max_tokens=16)
    task = task if kind == E else TaskSpec("plain-text", max_tokens=16)
    resident, opened = open_work(
        ResidentSpec(BaseSpec(str(folder), device="cpu", kind=kind), adapter, 0, cache_mb), task
    )
    resident.reset()
    resident.theta += 0.1 * torch.randn(resident.theta.shape, generator=torch.Generator().manual_seed(3))
    return resident, opened


def _gradients(resident: Any, task: Any, examples: Any, index: list[int]) -> Any:
    parameters = [resident.parameters[name] for name in resident.trained_names]
    loss = task.losses(task.forward(examples, index)).sum()
    return torch.autograd.grad(loss, parameters, materialize_grads=True)


def _last(folder: Path, kind: str, cache_mb: int) -> tuple[bool, list[torch.Tensor]]:
    """(whether something was kept, losses and gradients of two passes)."""
    resident, task = _opened(folder, kind, AdapterSpec(2, 4.0, last_layers=1), cache_mb)
    examples = made_up_records(known_ids(resident), [5, 9, 7])
    found: list[torch.Tensor] = []
    for index in ([0, 2], [0, 1, 2]):
        with torch.no_grad():
            found.append(task.losses(task.forward(examples, index)))
        found += _gradients(resident, task, examples, index)
    return bool(examples.frozen_outputs), found


def main() -> None:
    """Print the table."""
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    chosen, start = sys.argv[1:] or list(BASES), time.monotonic()
    for name in chosen:
        for kind in BASES[name][0]:
            with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(None):
                told = verdict(write_base(Path(folder), name, kind), kind)
            kept = f"kept ({told.kept_far:.0e})" if told.kept else f"computed ({told.kept_far:.0e})"
            told_rows = f"{told.rows} records a pass, gradient {told.far:.0e}; frozen outputs {kept}"
            print(f"{name:22}{kind:11}{told_rows if not told.refused else 'refused: ' + told.refused.splitlines()[0]}")
    print(f"{time.monotonic() - start:.0f} s")


if __name__ == "__main__":
    main()
