"""Every rule through a whole run: what sites trained is what is served, seen from the model's own matrices."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from client.app import make_app
from client.memory import Memory
from llmchain_fl.adapter.files import read_adapter
from llmchain_fl.aggregation import RULES
from llmchain_fl.config.write import to_toml
from llmchain_fl.core.adapter.resident import Resident, load_resident
from llmchain_fl.core.errors import LlmchainError
from llmchain_fl.core.work import WorkSpec
from llmchain_fl.progress import Logged
from llmchain_fl.run_dir import RunDir
from server.app import run_all
from server.state import last_state
from simulations.grid import InProcessGrid
from simulations.prepare import prepare_sites

pytestmark = pytest.mark.usefixtures("without_pages")

EXACT = sorted(name for name, rule in RULES.items() if rule.exact and rule.trained)
SHAPES = {"site_ranks": [1, 4, 2], "site_alphas": [4.0, 3.0, 8.0]}


def dense(resident: Resident) -> dict[str, np.ndarray]:
    """Delta W of every adapted layer as a matrix: what the layer does to the unit vectors beyond its base."""
    found = {}
    for path, layer in resident._layers.items():
        with torch.no_grad():
            unit = torch.eye(layer.in_features)
            found[path] = (layer(unit) - layer.get_base_layer()(unit)).T.double().numpy()
    return found


class Played:
    """A run, with the local matrices of every round and site."""

    def __init__(self, tiny: Any, folder: Path, **sections: Any) -> None:
        self.config = tiny.config(**sections)
        self.run = RunDir.create(folder, to_toml(self.config))
        self.local: dict[int, list[dict[str, np.ndarray]]] = {}
        sites = prepare_sites(self.config, self.run.sites)
        by_name = {site.name: site for site in sites}

        def watch(_site: Any, task: Any, _result: Any) -> None:
            resident = load_resident(WorkSpec.from_json(task.work).resident)
            self.local.setdefault(task.round, []).append(dense(resident))

        app = make_app(lambda context: by_name[str(context.node_config["site-name"])], watch)
        run_all(self.config, self.run, InProcessGrid(app, by_name), Logged())

    def served(self, stage: int) -> dict[str, np.ndarray]:
        """Delta W of the adapter on disk."""
        work, arrays = read_adapter(sorted(self.run.path.glob("stages/*/adapter"))[stage])
        resident = load_resident(work.resident)
        resident.reset()
        resident.load(arrays)
        return dense(resident)

    def error(self, stage: int) -> float:
        """Relative distance of the served product from the mean of the local ones."""
        mean = {path: np.mean([site[path] for site in self.local[stage + 1]], axis=0) for path in self.local[1][0]}
        served = self.served(stage)
        gap = sum(float(np.square(served[path] - mean[path]).sum()) for path in mean)
        return float(np.sqrt(gap / sum(float(np.square(value).sum()) for value in mean.values())))


def sections(rule: str, **adapter: Any) -> dict[str, Any]:
    held_out = 0.3 if rule == "fedsa" else 0.0
    return {
        "aggregation": {"rule": rule},
        "adapter": {"rank": 4, "alpha": 8.0, **adapter},
        "continual": {"guards": []},
        "sites": {"held_out": held_out},
        "stage": [{"name": name, "rounds": 1} for name in ("first", "second", "third")],
    }


@pytest.mark.parametrize("rule", EXACT)
@pytest.mark.part(3)
def test_an_exact_rule_serves_the_mean_of_what_the_sites_models_became(tiny: Any, tmp_path: Path, rule: str) -> None:
    played = Played(tiny, tmp_path / "run", **sections(rule))
    for stage in range(3):
        assert played.error(stage) < 3e-6, stage
    assert any(value.any() for value in played.served(2).values())


@pytest.mark.parametrize("rule", ["fedit", "hetlora"])
def test_an_inexact_rule_is_seen_to_be_inexact(tiny: Any, tmp_path: Path, rule: str) -> None:
    assert Played(tiny, tmp_path / "run", **sections(rule)).error(1) > 1e-3


@pytest.mark.parametrize("rule", sorted(name for name, rule in RULES.items() if rule.any_rank))
@pytest.mark.part(1)
def test_sites_of_unequal_rank_and_alpha_work_together(tiny: Any, tmp_path: Path, rule: str) -> None:
    played = Played(tiny, tmp_path / "run", **sections(rule, **SHAPES))
    assert {row["value"] for row in played.run.rows() if row["metric"] == "refused"} == set()
    if rule == "flora":
        assert max(played.error(stage) for stage in range(3)) < 3e-6
    ups = {row["site"]: row["value"] for row in played.run.rows() if row["metric"] == "bytes_up"}
    assert ups["site-00"] * 4 == ups["site-02"] * 2 == ups["site-01"]


@pytest.mark.parametrize("rule", EXACT)
@pytest.mark.part(2)
def test_sites_of_unequal_alpha_are_exact_too(tiny: Any, tmp_path: Path, rule: str) -> None:
    played = Played(tiny, tmp_path / "run", **sections(rule, site_alphas=[4.0, 3.0, 8.0]))
    assert max(played.error(stage) for stage in range(3)) < 3e-6


@pytest.mark.parametrize("rule", sorted(name for name, rule in RULES.items() if not rule.any_rank))
def test_unequal_ranks_are_refused_at_the_start_where_a_rule_cannot_mix_them(
    tiny: Any, tmp_path: Path, rule: str
) -> None:
    with pytest.raises(LlmchainError, match=r"rank 1; .* needs the global rank 4"):
        Played(tiny, tmp_path / "run", **sections(rule, **SHAPES))
    assert not RunDir.open(tmp_path / "run").rows()


def test_fedsa_leaves_every_site_with_a_model_of_its_own(tiny: Any, tmp_path: Path) -> None:
    played = Played(tiny, tmp_path / "run", **sections("fedsa"))
    homes = [played.run.sites / f"site-0{n}" / "state" for n in (0, 1)]
    kept = [Memory(home, played_run(played), "personal").before(9, None) for home in homes]
    assert kept[0].keys() == kept[1].keys()
    assert all(name.endswith("lora_B") for name in kept[0])
    assert any((kept[0][name] != kept[1][name]).any() for name in kept[0])
    sent = {row["value"] for row in played.run.rows() if row["metric"] == "bytes_up"}
    assert max(sent) < sum(array.nbytes for array in kept[0].values()) * 2
    scores = [row for row in played.run.rows() if row["scope"] == "site" and row["metric"] == "accuracy"]
    assert {row["site"] for row in scores} == {"site-00", "site-01", "site-02"}
    assert not any(value.any() for value in played.served(2).values())  # no common product


def played_run(played: Played) -> str:
    """The run's own name, by which its sites keep what they keep."""
    state = last_state(played.run.state)
    assert state is not None
    return state.run


def test_a_personal_head_never_travels(tiny: Any, tmp_path: Path) -> None:
    given = sections("ffa")
    given |= {"task": {"head": "trained"}, "aggregation": {"rule": "ffa", "personal_head": True}}
    given["sites"] = {"held_out": 0.3}
    played = Played(tiny, tmp_path / "run", **given)
    shared = {name for path in (played.run.path / "state").glob("*.safetensors") for name in names_in(path)}
    assert not any("head" in name for name in shared)
    kept = Memory(played.run.sites / "site-00/state", played_run(played), "personal").before(9, None)
    assert set(kept) == {"head.bias", "head.weight"}


def names_in(path: Path) -> set[str]:
    from safetensors.numpy import load_file

    return set(load_file(path))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"aggregation": {"rule": "fedsa"}}, "set sites.held_out above 0"),
        ({"aggregation": {"personal_head": True}, "sites": {"held_out": 0.2}}, 'needs task.head = "trained"'),
        ({"aggregation": {"rule": "flora"}, "continual": {"guards": ["ema"]}}, "re-factorises them every round"),
    ],
)
def test_what_does_not_go_with_a_rule_is_refused_before_round_1(
    tiny: Any, tmp_path: Path, changes: Any, said: str
) -> None:
    with pytest.raises(LlmchainError, match=said):
        Played(tiny, tmp_path / "run", **{"sites": {"held_out": 0.0}, "continual": {"guards": []}, **changes})
