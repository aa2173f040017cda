"""Lockstep through whole runs: the trajectory of training with all records in one place, for any split over sites."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from llmchain_fl.adapter.files import read_adapter
from llmchain_fl.core.work import open_work

pytestmark = pytest.mark.usefixtures("without_pages")

ROUNDS, LR = 5, 0.02
BATCH = 48.0
ONE_STAGE = [{"name": "only", "rounds": ROUNDS}]


def lockstep(sites: int, rule: str = "ffa", optimizer: str = "adam", **more: Any) -> dict[str, Any]:
    """Sections of a run that draws every record in every step."""
    loop = {"method": "lockstep", "steps": 1, "sampling_rate": 1.0, "batch_size": BATCH / sites, "lr": LR}
    return {
        "train": {**loop, "optimizer": optimizer, "momentum": 0.9},
        "sites": {"count": sites, "held_out": 0.0, **more},
        "task": {"head": "trained"},
        "aggregation": {"rule": rule},
        "continual": {"guards": []},
        "stage": ONE_STAGE,
    }


def in_one_place(tiny: Any, folder: Path, rule: str, optimizer: str) -> dict[str, np.ndarray]:
    """The same steps by torch alone over all records: no site, no server, no message."""
    work, _ = read_adapter(tiny.played(folder, **lockstep(1, rule, optimizer))[0].adapter)
    trained = {"ffa": ("lora_B",), "head-only": ()}[rule]
    resident, task = open_work(work.resident, work.task)
    resident.focus(trained)
    resident.reset()
    rows = [json.loads(line) for line in tiny.train.read_text(encoding="utf-8").splitlines()]
    examples = task.encode(rows)
    parameters = [resident.parameters[name] for name in resident.trained_names]
    step = (
        torch.optim.Adam(parameters, lr=LR, betas=(0.9, 0.999))
        if optimizer == "adam"
        else torch.optim.SGD(parameters, lr=LR, momentum=0.9)
    )
    for _ in range(ROUNDS):
        step.zero_grad()
        (task.losses(task.forward(examples, range(len(examples)))).sum() / BATCH).backward()
        step.step()
    return resident.arrays(resident.trained_names)


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
@pytest.mark.parametrize("rule", ["ffa", "head-only"])
@pytest.mark.part(2)
def test_every_split_over_sites_gives_the_steps_of_training_in_one_place(
    tiny: Any, tmp_path: Path, rule: str, optimizer: str
) -> None:
    central = in_one_place(tiny, tmp_path / "central", rule, optimizer)
    for sites, split in ((2, {"partition": "iid"}), (4, {"partition": "dirichlet", "alpha": 0.3})):
        arrays = tiny.played(tmp_path / f"{sites}", **lockstep(sites, rule, optimizer, **split))[1]
        assert central.keys() <= arrays.keys()
        for name, value in central.items():
            np.testing.assert_allclose(arrays[name], value, rtol=2e-3, atol=2e-5, err_msg=name)


@pytest.mark.parametrize("average", [0.0, 0.4, 1.0])
@pytest.mark.part(1)
def test_a_stage_leaves_the_mean_of_its_late_adapters(tiny: Any, tmp_path: Path, average: float) -> None:
    """Against runs that end sooner: their last adapters are those that the mean is of."""

    def arrays(rounds: int, **more: Any) -> Any:
        told = lockstep(2, "head-only", "sgd")
        told["train"] |= {"momentum": 0.0, **more}
        told["stage"] = [{"name": "only", "rounds": rounds}]
        return tiny.played(tmp_path / f"{rounds} {more}", **told)[1]

    late = [arrays(rounds) for rounds in range(ROUNDS + 1 - (round(average * ROUNDS) or 1), ROUNDS + 1)]
    for name, value in arrays(ROUNDS, average=average).items():
        np.testing.assert_allclose(value, np.mean([one[name] for one in late], axis=0), atol=1e-6, err_msg=name)
