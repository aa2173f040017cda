"""Records in memory for two sites, settings over a tiny model, and one finished run for the tests of this room."""

from __future__ import annotations

import random
from typing import Any

import pytest

import llmchain_fl as lf


class Memory:
    """Four labels, two sites, a public test set; ``settings(...)`` are those of a small run over them."""

    def __init__(self, small: Any) -> None:
        self.small = small
        self.train = {"north": self.rows(24, 1), "south": self.rows(16, 2)}
        self.test = self.rows(20, 3)

    def rows(self, count: int, seed: int) -> list[dict[str, Any]]:
        """``count`` records, labels in turn, each of three words out of its label's text."""
        draw, labels = random.Random(seed), list(self.small.labels)
        named = [labels[i % len(labels)] for i in range(count)]
        return [{"text": " ".join(draw.choices(self.small.labels[name].split(), k=3)), "label": name} for name in named]

    def settings(self, **sections: Any) -> dict[str, Any]:
        """One stage of one round over a tiny BERT, seeded, no privacy; ``sections`` are laid over it."""
        tree: dict[str, Any] = {
            "seed": 3,
            "model": {"path": str(self.small.bert), "threads": 1, "max_tokens": 8},
            "adapter": {"rank": 2},
            "train": {"steps": 2, "sampling_rate": 0.5, "batch_size": 8, "lr": 0.02},
            "stage": [{"name": "first", "rounds": 1}],
        }
        for name, section in sections.items():
            known = tree.get(name, {})
            tree[name] = {**known, **section} if isinstance(section, dict) else section
        return tree


@pytest.fixture(scope="session")
def memory(small: Any) -> Memory:
    """The same for all tests of this room."""
    return Memory(small)


@pytest.fixture(scope="session")
def finished(memory: Memory, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """(result, what the callback was given) of two rounds."""
    told: list[tuple[Any, list[dict[str, Any]]]] = []
    result = lf.run(
        memory.settings(stage=[{"name": "first", "rounds": 2}]),
        train=memory.train,
        test=memory.test,
        callbacks=[lambda report, rows: told.append((report, rows))],
        out=tmp_path_factory.mktemp("api") / "run",
    )
    return result, told
