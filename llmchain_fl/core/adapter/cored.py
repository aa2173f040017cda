"""A core between the two factors of a layer, for rules that train it alone."""

from __future__ import annotations

from torch import Tensor, nn


class Cored(nn.Module):
    """``x -> R A x``: lora_A of a layer with a core between its two factors (``fedsb``), R zero at first."""

    def __init__(self, inner: nn.Linear) -> None:
        super().__init__()
        rank = inner.out_features
        self.A = inner
        self.R = nn.Linear(rank, rank, bias=False, device=inner.weight.device, dtype=inner.weight.dtype)
        nn.init.zeros_(self.R.weight)

    @property
    def weight(self) -> Tensor:
        """That of A: peft looks at its number type."""
        return self.A.weight

    def forward(self, x: Tensor) -> Tensor:
        """[..., d_in] -> [..., r]."""
        return self.R(self.A(x))  # type: ignore[no-any-return]
