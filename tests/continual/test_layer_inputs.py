"""Second moments against inputs caught one record at a time."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from llmchain_fl.continual import layer_inputs
from llmchain_fl.continual.layer_inputs import second_moments
from llmchain_fl.core.errors import ModelError


def caught(task: Any, rows: Any, module: str) -> Any:
    """All inputs of a layer, one record at a time so that nothing is padded."""
    found: list[torch.Tensor] = []
    layer = task.resident.base.module.get_submodule(module)
    hook = layer.register_forward_pre_hook(lambda _, inputs: found.append(inputs[0].detach()[0]))
    examples = task.encode(rows)
    with torch.no_grad():
        for i in range(len(examples)):
            task.forward(examples, [i])
    hook.remove()
    return torch.cat(found).double().numpy()


@pytest.mark.parametrize("kind", ["classification", "causal-lm"])
def test_moments_count_every_token_once_and_no_padding(small: Any, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    task, rows = small.task(kind), small.rows(5, kind)
    arrays, examples = task.resident.arrays(), task.encode(rows)
    found = [name.removesuffix(".lora_B") for name in arrays if name.endswith(".lora_B")]
    once = dict(second_moments(task, examples, range(5), found))
    assert list(once) == found
    monkeypatch.setattr(layer_inputs, "MEMORY", 1)
    monkeypatch.setattr(layer_inputs, "BATCH", 2)
    passes = list(second_moments(task, examples, range(5), found))
    assert [module for module, _ in passes] == found
    many = dict(passes)
    for module in found:
        inputs = caught(task, rows, module)
        np.testing.assert_allclose(once[module], inputs.T @ inputs, rtol=1e-4, atol=1e-3)
        np.testing.assert_allclose(many[module], once[module], rtol=1e-4, atol=1e-3)
    assert not dict(second_moments(task, examples, [], found[:1]))[found[0]].any()


def test_a_layer_that_does_not_see_one_row_a_token_is_refused(small: Any) -> None:
    task = small.task()
    path = "encoder.layer.0.attention.self.query"
    layer = task.resident.base.module.get_submodule(path)
    hook = layer.register_forward_pre_hook(lambda _, inputs: (inputs[0].flatten(0, 1),))
    try:
        with pytest.raises(ModelError, match=f"{path} takes inputs of shape"):
            dict(second_moments(task, task.encode(small.rows(3)), [0, 1, 2], [path]))
    finally:
        hook.remove()
