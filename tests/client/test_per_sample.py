"""Per-record gradients of linear layers: against autograd, against Opacus, and the table of what is refused."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from opacus.grad_sample import GradSampleHooks
from torch import Tensor, nn

from client.per_sample import PerSample
from llmchain_fl.core.errors import TrainingError


def resident_of(module: nn.Module, layouts: Any = ()) -> Any:
    """What ``PerSample`` asks of a resident, over any module; every parameter is trained."""
    parameters = dict(module.named_parameters())
    size = sum(p.numel() for p in parameters.values())
    return SimpleNamespace(
        module=module,
        parameters=parameters,
        trained_names=tuple(parameters),
        trained=torch.zeros(size),
        layouts=dict(layouts),
    )


def by_autograd(module: nn.Module, x: Tensor, loss: Any) -> Tensor:
    rows = [torch.autograd.grad(loss(module, x[i : i + 1])[0], list(module.parameters())) for i in range(len(x))]
    return torch.stack([torch.cat([g.reshape(-1) for g in row]) for row in rows])


def squares(module: nn.Module, x: Tensor) -> Tensor:
    return module(x).square().flatten(1).sum(dim=1)


def rows_of(module: nn.Module, x: Tensor, loss: Any = squares, most: int = 8, layouts: Any = ()) -> Tensor:
    per_sample = PerSample(resident_of(module, layouts), most)
    try:
        return per_sample.rows(len(x), lambda: loss(module, x).sum().backward()).clone()
    finally:
        per_sample.close()


@pytest.mark.parametrize("shape", [(5, 4), (5, 3, 4), (5, 2, 3, 4), (1, 4)])
def test_rows_are_the_gradients_of_each_record_alone(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 2, bias=False))
    x = torch.randn(shape)
    expected = by_autograd(module, x, squares)
    assert torch.allclose(rows_of(module, x), expected, rtol=1e-5, atol=1e-6)


def test_a_layer_that_is_run_twice_counts_twice() -> None:
    torch.manual_seed(0)
    module, x = nn.Linear(4, 4), torch.randn(5, 3, 4)

    def twice(layer: nn.Module, part: Tensor) -> Tensor:
        return layer(layer(part).tanh()).square().flatten(1).sum(dim=1)

    assert torch.allclose(rows_of(module, x, twice), by_autograd(module, x, twice), rtol=1e-5, atol=1e-6)


def test_rows_equal_those_of_opacus_on_a_real_adapter(case_of: Any) -> None:
    case = case_of()
    resident, names = case.resident, case.resident.trained_names
    per_sample = PerSample(resident, 9)
    ours = per_sample.rows(9, lambda: case.loss(range(9)).sum().backward()).clone()
    per_sample.close()
    hooks = GradSampleHooks(resident.module, batch_first=True, loss_reduction="sum", strict=False)
    case.loss(range(9)).sum().backward()
    theirs = torch.cat([resident.parameters[name].grad_sample.reshape(9, -1) for name in names], dim=1)
    hooks.remove_hooks()
    for name in names:
        resident.parameters[name].grad = None
        del resident.parameters[name].grad_sample
    assert float((ours - theirs).abs().max()) <= 1e-5 * float(theirs.abs().max())


def test_no_batch_gradient_is_computed_and_the_layers_get_their_own_pass_back() -> None:
    module, x = nn.Linear(4, 2), torch.randn(3, 4)
    rows_of(module, x)
    assert module.weight.grad is None
    assert "forward" not in vars(module)
    squares(module, x).sum().backward()
    assert module.weight.grad is not None


def test_a_trained_layer_without_a_rule_is_refused_by_name_and_nothing_stays_patched() -> None:
    """Records of a batch meet in its statistics."""
    module = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
    with pytest.raises(TrainingError, match="a BatchNorm1d has no per-example gradient"):
        PerSample(resident_of(module), 4)
    assert all("forward" not in vars(part) for part in module.modules())


class Doubled(nn.Module):
    """An architecture's own layer, which nobody has registered."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4))

    def forward(self, x: Tensor) -> Tensor:
        return x.tanh() * self.weight.square()


OTHERS = {
    "LayerNorm": (lambda: nn.LayerNorm(4), (5, 3, 4)),
    "LayerNorm without a shift": (lambda: nn.LayerNorm(4, bias=False), (5, 3, 4)),
    "RMSNorm": (lambda: nn.RMSNorm(4), (5, 3, 4)),
    "GroupNorm": (lambda: nn.GroupNorm(2, 4), (5, 4, 6)),
    "Conv1d": (lambda: nn.Conv1d(4, 3, 2), (5, 4, 6)),
    "Embedding": (lambda: nn.Embedding(7, 4), (5, 3)),
    "its own": (Doubled, (5, 3, 4)),
}
"""Layers that are not linear -> what makes one, and the shape of five records."""


@pytest.mark.parametrize("name", OTHERS)
def test_layers_that_are_not_linear_have_the_gradients_of_each_record_alone(name: str) -> None:
    torch.manual_seed(0)
    make, shape = OTHERS[name]
    module = make()
    for parameter in module.parameters():
        nn.init.normal_(parameter)
    x = torch.randint(7, shape) if name == "Embedding" else torch.randn(shape)
    assert torch.allclose(rows_of(module, x), by_autograd(module, x, squares), rtol=1e-4, atol=1e-5)
    assert "forward" not in vars(module)
    assert all(parameter.requires_grad for parameter in module.parameters())


@pytest.mark.parametrize("layout", ["flat", "second"])
def test_layouts_are_those_of_other_layers_too(layout: str) -> None:
    torch.manual_seed(0)
    module, x = nn.LayerNorm(4), torch.randn(3, 2, 4)
    loss = {"flat": flat, "second": second}[layout]
    layouts = dict.fromkeys(("weight", "bias"), layout)
    assert torch.allclose(rows_of(module, x, loss, layouts=layouts), by_autograd(module, x, loss), rtol=1e-4, atol=1e-5)


def test_a_layer_that_no_record_passes_has_gradient_zero() -> None:
    """An expert that none of the records was sent to."""
    module = nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 4)])

    def first_only(both: nn.Module, x: Tensor) -> Tensor:
        return both[0](x).square().sum(dim=1)

    found, used = rows_of(module, torch.randn(3, 4), first_only), sum(p.numel() for p in module[0].parameters())
    assert found[:, :used].abs().min() > 0
    assert torch.equal(found[:, used:], torch.zeros(3, used))


def flat(layer: nn.Module, x: Tensor) -> Tensor:
    """The layer sees tokens, record after record."""
    return layer(x.reshape(-1, 4)).reshape(x.shape).square().flatten(1).sum(dim=1)


def second(layer: nn.Module, x: Tensor) -> Tensor:
    """The layer sees tokens first, records second."""
    return layer(x.transpose(0, 1)).transpose(0, 1).square().flatten(1).sum(dim=1)


def shared(layer: nn.Module, x: Tensor) -> Tensor:
    """The layer also sees rows that serve all records (positions)."""
    return (layer(x) * layer(torch.ones(1, 6, 4)).sum()).square().flatten(1).sum(dim=1)


@pytest.mark.parametrize(("loss", "layout"), [(flat, "flat"), (second, "second")])
def test_records_are_told_apart_in_the_layout_that_was_found(loss: Any, layout: str) -> None:
    torch.manual_seed(0)
    module, x = nn.Linear(4, 4), torch.randn(3, 2, 4)
    layouts = dict.fromkeys(("weight", "bias"), layout)
    assert torch.allclose(rows_of(module, x, loss, layouts=layouts), by_autograd(module, x, loss), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("loss", [flat, second, shared])
def test_one_record_is_exact_in_any_layout(loss: Any) -> None:
    torch.manual_seed(0)
    module, x = nn.Linear(4, 4), torch.randn(1, 6, 4)
    assert torch.allclose(rows_of(module, x, loss), by_autograd(module, x, loss), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("loss", [flat, second, shared])
def test_several_records_that_do_not_stand_as_expected_are_refused(loss: Any) -> None:
    """Rows of tokens taken for records would clip the wrong thing."""
    with pytest.raises(TrainingError, match="does not hold 3 records"):
        rows_of(nn.Linear(4, 4), torch.randn(3, 6, 4), loss)


@pytest.mark.parametrize(("loss", "layout"), [(shared, "flat"), (flat, "second"), (lambda m, x: m(x)[:, 0], "second")])
def test_a_layer_that_is_not_in_its_layout_any_more_is_refused(loss: Any, layout: str) -> None:
    with pytest.raises(TrainingError, match="does not hold 4 records"):
        rows_of(nn.Linear(4, 4), torch.randn(4, 5, 4), loss, layouts=dict.fromkeys(("weight", "bias"), layout))


def test_more_records_than_the_buffer_holds_are_refused() -> None:
    with pytest.raises(TrainingError, match="9 records in one pass, at most 8"):
        rows_of(nn.Linear(4, 2), torch.randn(9, 4))


def test_half_precision_inputs_give_float32_rows() -> None:
    module = nn.Linear(4, 2).to(torch.bfloat16)
    assert rows_of(module, torch.randn(3, 4, dtype=torch.bfloat16)).dtype == torch.float32


def test_a_record_that_is_not_finite_spoils_its_own_row_only() -> None:
    module, x = nn.Linear(4, 2), torch.randn(3, 5, 4)
    clean = rows_of(module, x)
    x[1, 2, 3] = np.nan
    spoilt = rows_of(module, x)
    assert torch.equal(spoilt[[0, 2]], clean[[0, 2]])
    assert spoilt[1].isnan().any()
