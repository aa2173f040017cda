"""Outputs of frozen layers that outlive the records they were computed for."""

from __future__ import annotations

from itertools import islice

from torch import Tensor

Key = tuple[int, int, bytes]
"""Position of the first adapted layer (-1: the head; then the version of what is below it stands before the tokens),
length of the pass where its shape is fixed (else 0), the text's tokens."""


class Remembered:
    """Outputs of frozen layers by the text's tokens, for as long as the base is loaded, whoever the records belong to.

    Off (``limit_mb`` 0) unless somebody asks for it: at a site nothing may outlive the records. For many simulated runs
    over the same texts (``compare``, ``simulate --beside``), whose adapters may differ, as the frozen layers do not.
    """

    def __init__(self) -> None:
        self.limit_mb, self.used = 0, 0
        self._outputs: dict[Key, Tensor] = {}

    def __len__(self) -> int:
        return len(self._outputs)

    def since(self, count: int) -> dict[Key, Tensor]:
        """All that came after the first ``count``."""
        return dict(islice(self._outputs.items(), count, None))

    def get(self, key: Key) -> Tensor | None:
        """The output of the layers below the first adapted one for these tokens, if it is known."""
        return self._outputs.get(key)

    def put(self, key: Key, output: Tensor) -> None:
        """Remember it, if it is new and there is room."""
        if key not in self._outputs and self.used + output.nbytes <= self.limit_mb * 2**20:
            self._outputs[key] = output
            self.used += output.nbytes
