"""Labels from a saved adapter, with transformers and peft alone: nothing of the training code is run.

What it computes is what the run served (``core/tasks/classification.py``), written down a second time, short enough to
be copied into a service of one's own:

    h(x)      = pooled token vectors of base + adapter, at unit length
    label-text:  logit_l = scale * h(x) . e_l,   e_l = h(text of l) of the base alone
    trained:     logits  = W (scale * h(x)) + b,  W, b from head.safetensors
                 (with random features: [h ; max(0, h P)] for h, P drawn from the seed in work.json)

==================================  ===========================================================
the folder                          result
==================================  ===========================================================
of a language model                 ModelError: it gives texts, no labels
of another kind, or several windows  ModelError: ``llmchain-fl predict``
slots of which a text chooses one   ModelError: peft's format cannot choose; ``llmchain-fl predict``
every product B A is 0              the base model's answers, and a warning
==================================  ===========================================================
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from llmchain_fl.core.adapter.variants import LORA
from llmchain_fl.core.errors import ModelError
from llmchain_fl.core.tasks.kind import task_kind

BATCH = 64


class Classifier:
    """Texts -> labels. Make one with :meth:`from_folder`.

    Attributes:
        labels: in the order of the label list.
    """

    def __init__(self, model: Any, tokenizer: Any, task: dict[str, Any], head: dict[str, Any] | None) -> None:
        self.labels = [str(name) for name, _ in task["labels"]]
        self._model, self._tokenizer, self._task = model, tokenizer, task
        if head is None:
            with model.disable_adapter():
                self._weight, self._bias = self._vectors([str(text) for _, text in task["labels"]]), 0.0
        else:
            self._weight, self._bias = head["head.weight"], head["head.bias"]
        self._across = self._projection() if task.get("features") else None

    @classmethod
    def from_folder(cls, folder: str | Path, *, base: str = "", device: str = "cpu") -> Classifier:
        """Read an adapter folder (``RUN/adapter``, ``RUN/stages/*/adapter``).

        Args:
            folder: with ``work.json`` in it.
            base: where the base model is, if not where the run had it: a folder or a hub id.
            device: of torch.

        Raises:
            ModelError: see the table above; or the folder, or the base, cannot be read.
        """
        from peft import PeftModel
        from safetensors.torch import load_file
        from transformers import AutoModel, AutoTokenizer

        folder = Path(folder)
        work = _work(folder)
        place = base or _base(str(work["base"]["path"]))
        try:
            with _quiet():
                tokenizer = AutoTokenizer.from_pretrained(place)
                bare = AutoModel.from_pretrained(place, **_weights(str(work["base"]["dtype"]), device))
                model = PeftModel.from_pretrained(bare, str(folder)).eval()
                model = model if _few(bare) else model.to(device)
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            message = f"the base model {place} with the adapter in {folder} cannot be loaded: {reason[:200]}"
            raise ModelError(message, remedy="give base=, a folder or hub id of the model it was trained on") from error
        head = folder / "head.safetensors"
        products = [float(value.abs().max()) for name, value in model.named_parameters() if ".lora_B." in name]
        if products and not any(products) and work["adapter"].get("variant", LORA) == LORA:
            warnings.warn(f"the adapter in {folder} changes nothing: see its README.md", stacklevel=2)
        return cls(model, tokenizer, work["task"], load_file(head, device=device) if head.is_file() else None)

    def __call__(self, texts: Sequence[str]) -> list[str]:
        """The best label of each text."""
        return [best[0][0] for best in self.top(texts, 1)]

    def top(self, texts: Sequence[str], count: int = 3) -> list[list[tuple[str, float]]]:
        """The ``count`` best labels of each text with their probabilities."""
        texts = [texts] if isinstance(texts, str) else list(texts)
        if not texts:
            return []
        scaled = float(self._task["scale"]) * self._vectors(texts)
        logits = self._lifted(scaled) @ self._weight.T + self._bias
        best = logits.softmax(dim=-1).topk(min(count, len(self.labels)), dim=-1)
        rows = zip(best.values.tolist(), best.indices.tolist(), strict=True)
        return [[(self.labels[i], p) for p, i in zip(ps, ix, strict=True)] for ps, ix in rows]

    def _projection(self) -> Any:
        """P of the random features, float32 [H, M]."""
        from llmchain_fl.core.tasks.random_features import RandomFeatures

        count = int(self._task["features"])
        drawn = RandomFeatures(self._weight.shape[1] - count, count, int(self._task["feature_seed"])).projection()
        return self._weight.new_tensor(drawn)

    def _lifted(self, x: Any) -> Any:
        """[x ; max(0, x P)], or x where there are no random features."""
        if self._across is None:
            return x
        import torch

        return torch.cat([x, (x @ self._across).relu()], dim=-1)

    def _vectors(self, texts: list[str]) -> Any:
        """h of each text, float32 [n, H]."""
        import torch

        parts = []
        for start in range(0, len(texts), BATCH):
            part = texts[start : start + BATCH]
            cut = {"truncation": True, "max_length": int(self._task["max_tokens"]), "padding": True}
            read = self._tokenizer(part, return_tensors="pt", **cut).to(self._model.device)
            ids, mask = read["input_ids"], read["attention_mask"]
            with torch.no_grad():
                hidden = self._model(input_ids=ids, attention_mask=mask).last_hidden_state.float()
            weight = mask.unsqueeze(-1).float()
            mean = (hidden * weight).sum(dim=1) / weight.sum(dim=1).clamp_min(1.0)
            pooled = mean if self._task["pooling"] == "mean" else hidden[:, 0]
            parts.append(torch.nn.functional.normalize(pooled, dim=-1))
        return torch.cat(parts)


def _work(folder: Path) -> dict[str, Any]:
    """``work.json``, if plain peft can serve the folder's labels."""
    try:
        work: dict[str, Any] = json.loads((folder / "work.json").read_text(encoding="utf-8"))
        labels = work["task"]["labels"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(
            f"{folder} holds no adapter of this project", remedy="give RUN/adapter or RUN/stages/NAME/adapter"
        ) from error
    if not labels:
        raise ModelError(f"the adapter in {folder} has no labels", remedy="load it as its README.md says")
    if not task_kind(str(work["task"]["kind"])).pooled or int(work["task"].get("windows", 1)) > 1:
        message = f"the adapter in {folder} is of no classifier of single rows of text"
        raise ModelError(message, remedy="use `llmchain-fl predict`, or result.predict")
    slots = folder / "slots.safetensors"
    if slots.is_file():
        from safetensors import safe_open

        with safe_open(slots, framework="numpy") as opened:
            if "keys" in opened.keys():  # noqa: SIM118 (not a dict)
                message = f"in {folder} each text chooses among slots, which peft's format cannot do"
                raise ModelError(message, remedy="use `llmchain-fl predict`, or result.predict")
    return work


def _base(path: str) -> str:
    """Where the base named in ``work.json`` is on this machine."""
    from llmchain_fl.core.base_model import locate

    return locate(path).path


def _weights(dtype: str, device: str) -> dict[str, Any]:
    """What ``from_pretrained`` is told of the number type that the run had."""
    from llmchain_fl.core.base_model import BaseSpec, weight_options

    return weight_options(BaseSpec("", dtype=dtype, device=device))


def _few(model: Any) -> bool:
    """Whether it has few bits a weight, and so lies where it was loaded to."""
    return bool(getattr(model, "is_quantized", False))


@contextmanager
def _quiet() -> Iterator[None]:
    """No progress bar, no table of unused weights, no word of peft's about names that transformers has renamed."""
    from transformers.utils import logging

    level = logging.get_verbosity()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        logging.set_verbosity(level)
