"""Outputs of frozen layers that outlive the records they were computed for."""

from __future__ import annotations

from torch import Tensor


class Remembered:
    """Outputs of frozen layers by the text's tokens, for as long as the base is loaded, whoever the records belong to.

    Off (``limit_mb`` 0) unless somebody asks for it: at a site nothing may outlive the records. For many simulated runs
    over the same texts (``llmchain-fl compare``), whose adapters may differ, as long as the frozen layers do not.
    """

    def __init__(self) -> None:
        self.limit_mb, self.used = 0, 0
        self._outputs: dict[tuple[int, bytes], Tensor] = {}

    def __len__(self) -> int:
        return len(self._outputs)

    def get(self, first: int, tokens: bytes) -> Tensor | None:
        """The output of the layers below ``first`` for these tokens, if it is known."""
        return self._outputs.get((first, tokens))

    def put(self, first: int, tokens: bytes, output: Tensor) -> None:
        """Remember it, if there is room."""
        if self.used + output.nbytes <= self.limit_mb * 2**20:
            self._outputs[first, tokens] = output
            self.used += output.nbytes
