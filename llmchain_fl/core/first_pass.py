"""Passes over tokens that nobody wrote: whether a base works on token ids alone, and which way it reads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from llmchain_fl.core.errors import ModelError
from llmchain_fl.core.plugins import Named

TEXT_BASES = "use a text encoder or decoder with one stack of layers (BERT, RoBERTa, Llama, Qwen, GPT-2 ...)"
TWO_STACKS: Named[Callable[..., Any]] = Named(
    {
        "stacks": "llmchain_fl.core.two_stacks:stacks",
        "moved": "llmchain_fl.core.two_stacks:moved",
    }
)
"""An encoder with a decoder; imported where a base is one."""
TOKENS = (1, 2, 8)
ALIKE = 1e-3
"""Largest difference of two passes, over the largest output: sums on a GPU come in any order."""


def text_config(module: Any) -> Any:
    """The configuration of the layers that read text (some models see pictures too)."""
    return getattr(module.config, "get_text_config", lambda: module.config)()


def has_two_stacks(module: Any) -> bool:
    """Whether it is an encoder with a decoder."""
    return bool(getattr(module.config, "is_encoder_decoder", False))


def token_table(module: Any) -> nn.Embedding | None:
    """The embedding of token ids; None where ids are read in another way."""
    try:
        table = module.get_input_embeddings()
    except (AttributeError, NotImplementedError):
        return None
    return table if isinstance(table, nn.Embedding) else None


def first_line(error: Exception) -> str:
    """What a library says, its first line."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300]


def made_up_ids(module: Any, texts: int, tokens: int) -> Tensor:
    """int64 [texts, tokens], below the size of the base's embedding."""
    table = token_table(module)
    ids = torch.arange(1, texts * tokens + 1) % (texts * tokens + 1 if table is None else table.num_embeddings)
    return ids.view(texts, tokens).to(module.device)


def first_pass(module: Any, path: str, kind: str) -> tuple[int, bool | None]:
    """(width of what a base of this kind gives for a token, whether that depends on later tokens; None: unknown).

    What a token's output depends on is where its gradient is not zero: behind a causal mask it is exactly zero.

    Raises:
        ModelError: it cannot be computed from token ids and mask, is not finite, or what it gives depends on chance or
            on the passes before: one record would leave its mark on the next.
    """
    module.train()
    before = {name: buffer.clone() for name, buffer in module.named_buffers()}
    tokens = 0
    try:
        for tokens in TOKENS:
            ids = made_up_ids(module, 2, tokens)
            with torch.no_grad():
                again = _output(module, kind, ids[:1], torch.ones_like(ids[:1]))
        with torch.no_grad():  # the second text is one token and padding
            _output(module, kind, ids, (torch.arange(2 * tokens).view(2, tokens) <= tokens).long().to(ids.device))
        given, slope = _slope(module, kind, ids[:1])
    except Exception as error:
        raise ModelError(
            f"model.path = {path!r}: {type(module).__name__} cannot compute {tokens} token ids alone: "
            f"{first_line(error)}",
            remedy=TEXT_BASES if module.dtype == torch.float32 else f'set model.dtype = "float32", or {TEXT_BASES}',
        ) from error
    if not given.isfinite().all():
        raise ModelError(
            f"model.path = {path!r} gives numbers that are not finite",
            remedy='set model.dtype = "float32", or look at the weights',
        )
    counted = [name for name, buffer in module.named_buffers() if not torch.equal(buffer, before.get(name, buffer))]
    if counted or float((given - again).abs().max()) > ALIKE * float(given.abs().max()):
        raise ModelError(
            f"model.path = {path!r}: {type(module).__name__} "
            + (f"changes with every pass ({counted[0]})" if counted else "gives two numbers for one text"),
            remedy=TEXT_BASES,
        )
    width = given.shape[-1] if kind == "encoder" else text_config(module).hidden_size
    return int(width), None if slope is None else bool((slope.flatten(0, -2)[1:] != 0).any())


def _output(module: Any, kind: str, ids: Tensor, mask: Tensor) -> Tensor:
    """[n, T, width]."""
    output = computed(module, ids, mask)
    given: Tensor = output.last_hidden_state if kind == "encoder" else output.logits
    return given


def computed(module: Any, ids: Tensor, mask: Tensor) -> Any:
    """A pass over ``ids``; a decoder behind an encoder says the same ids."""
    return module(input_ids=ids, attention_mask=mask, **({"decoder_input_ids": ids} if has_two_stacks(module) else {}))


def _slope(module: Any, kind: str, ids: Tensor) -> tuple[Tensor, Tensor | None]:
    """The output for one text, and the gradient of its first token's by the embedded tokens [1, T, H] or [T, 1, H]."""
    if has_two_stacks(module):
        whole, moved = TWO_STACKS["moved"](module, ids, ALIKE)
        return whole, moved
    entered: list[Tensor] = []

    def enter(_table: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
        entered.append(output.detach().requires_grad_())
        return entered[-1] * 1  # a model may change it in place

    table = token_table(module)
    hook = None if table is None else table.register_forward_hook(enter)
    try:
        with torch.enable_grad():
            given = _output(module, kind, ids, torch.ones_like(ids))
    finally:
        if hook is not None:
            hook.remove()
    if not entered:
        return given.detach(), None
    weight = torch.cos(torch.arange(given.shape[-1], device=given.device))  # a sum alone: a norm makes it constant
    return given.detach(), torch.autograd.grad(given[0, 0].float() @ weight, entered[0])[0]
