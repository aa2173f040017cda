"""A model so simple that an update can be read: the gradient of a record is any vector that the gate chooses.

Two real linear layers without bias, y = W1 x1 + W2 x2 with one output each; a record is x = (x1, x2) and its loss is
y. The loss is linear, so the gradient of record i is x_i itself, whatever the weights are, and per-sample rows, the
clipping, the noise and the optimiser do their ordinary work on it. There are two layers, so that clipping one layer at
a time is seen. Coordinates that no record has carry noise alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from llmchain_fl.core.adapter.beside import Beside
from llmchain_fl.core.adapter.resident import Resident, ResidentSpec
from llmchain_fl.core.adapter.value import AdapterSpec, Arrays
from llmchain_fl.core.base_model import Base, BaseSpec
from llmchain_fl.core.tasks.base import Examples, Output
from llmchain_fl.core.tasks.metric import Metric

Floats = npt.NDArray[np.float64]

BASE = BaseSpec("practice", device="cpu")
ADAPTER = AdapterSpec(rank=1, alpha=1.0, trained=("lora_B",))


class ProbeModel(nn.Module):
    """y = W1 x1 + W2 x2, [n, 1]. ``half``: computed in bfloat16, so that gradients come in bfloat16."""

    def __init__(self, width: int, *, half: bool) -> None:
        super().__init__()
        self.cut, self.in_half = width // 2, half
        self.first = nn.Linear(self.cut, 1, bias=False)
        self.second = nn.Linear(width - self.cut, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """x: float32 [n, P]."""
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.in_half):
            result: Tensor = self.first(x[:, : self.cut]) + self.second(x[:, self.cut :])
        return result


class ProbeResident(Resident):
    """The probe model as the training loop wants it: everything but the making is the real resident's."""

    def __init__(self, width: int, *, half: bool = False) -> None:
        model = ProbeModel(width, half=half)
        self.spec = ResidentSpec(BASE, ADAPTER)
        self.base = Base(model, None, torch.device("cpu"), "practice", width)
        self.head, self.head_start, self.layouts = None, {}, {}
        self.module = nn.ModuleDict({"base": model})
        self.module.train()
        self.probe = model
        self._layers, self._start = {}, {}
        self.beside = Beside({}, model, self.base.device)
        self._lay_out({f"{name[:-7]}.lora_B": weight for name, weight in model.named_parameters()}, ADAPTER.trained)
        self.reset()


class ProbeTask:
    """A task whose records are rows of ``features``. Remembers the parameters of each forward pass (``trace``);
    ``watch`` is called before it; a pass over a record of ``raises`` ends in an error."""

    counts = 0.0
    metrics: tuple[Metric, ...] = (Metric("loss", "lower", bound=1.0),)

    def __init__(self, features: npt.NDArray[np.float32], *, half: bool = False) -> None:
        self.features = torch.from_numpy(np.ascontiguousarray(features, dtype=np.float32))
        self.resident: Resident = ProbeResident(features.shape[1], half=half)
        self._seen: list[Tensor] = []
        self.watch: Callable[[], None] | None = None
        self.raises: frozenset[int] = frozenset()
        self.votes: Floats = np.zeros(len(features))

    def examples(self) -> Examples:
        """All rows, of different lengths, so that the loop's sorting has something to do."""
        ids = [np.zeros(1 + (7 * i) % 5, dtype=np.int64) for i in range(len(self.features))]
        return Examples(ids, np.zeros(len(self.features), dtype=np.int64))

    def encode(self, rows: Sequence[Mapping[str, str]]) -> Examples:
        """The rows of ``features``, whatever is asked."""
        return self.examples()

    def forward(self, examples: Examples, index: Sequence[int]) -> Output:
        """y of the records ``index``."""
        if self.watch is not None:
            self.watch()
        if not self.raises.isdisjoint(index):
            raise IndexError("a record that the model cannot read")
        now = self.resident.trained
        if not self._seen or not torch.equal(self._seen[-1], now):
            self._seen.append(now.clone())
        y = self.resident.module["base"](self.features[list(index)])
        return Output(y, torch.zeros(len(index), dtype=torch.int64))

    def losses(self, output: Output) -> Tensor:
        """y itself, float32 [n]."""
        return output.logits.float().sum(dim=1)

    def divergence(self, output: Output, teacher: Output, temperature: float) -> Tensor:
        """There is no teacher."""
        return torch.zeros(len(output.logits))

    def score(self, examples: Examples, batch: int = 128) -> dict[str, float]:
        """There is nothing to score."""
        return {"loss": 0.0}

    def record_scores(self, examples: Examples, batch: int = 128) -> Floats:
        """``votes``, which the gate may set."""
        return self.votes

    def predict(self, texts: Sequence[str], top: int = 3) -> list[list[tuple[str, float]]]:
        """There is nothing to predict."""
        return [[] for _ in texts]

    def trace(self) -> Floats:
        """Parameters before each step that had a forward pass, [steps, P], and forget them."""
        seen, self._seen = self._seen, []
        return torch.stack(seen).double().numpy() if seen else np.zeros((0, self.features.shape[1]))

    def vector(self, arrays: Mapping[str, object]) -> Floats:
        """Named arrays as one vector in the order of the features, float64 [P]."""
        names = self.resident.trained_names
        return np.concatenate([np.asarray(arrays[name], dtype=np.float64).reshape(-1) for name in names])

    def arrays(self, vector: Floats) -> Arrays:
        """The other way round, float32."""
        arrays, start = {}, 0
        for name in self.resident.trained_names:
            shape = self.resident.shapes[name]
            size = int(np.prod(shape))
            arrays[name] = vector[start : start + size].reshape(shape).astype(np.float32)
            start += size
        return arrays
