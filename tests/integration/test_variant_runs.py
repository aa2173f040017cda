"""Variants without a product through whole runs: what is served is the mean of what the sites' models became."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llmchain_fl.adapter.files import read_adapter
from llmchain_fl.aggregation import RULES
from llmchain_fl.aggregation.factors import product_pair
from llmchain_fl.api.classifier import Classifier
from llmchain_fl.core.adapter.variants import VARIANTS
from llmchain_fl.core.errors import ConfigError

pytestmark = pytest.mark.usefixtures("without_pages")
WITHOUT = [name for name, variant in VARIANTS.items() if not variant.product]
ONE_STAGE: dict[str, Any] = {"continual": {"guards": []}, "stage": [{"name": "only", "rounds": 2}]}
PRIVATE = {"enabled": True, "epsilon": 8.0, "unit": "person"}
OFTEN = ("layer-norm",)
"""Variants of which `make test` plays the longer runs; the others are thorough."""


def often(names: list[str]) -> list[Any]:
    return [name if name in OFTEN else pytest.param(name, marks=pytest.mark.thorough) for name in names]


@pytest.mark.parametrize("variant", WITHOUT)
def test_the_served_adapter_is_the_mean_of_the_sites_adapters(tiny: Any, tmp_path: Path, variant: str) -> None:
    local: dict[int, list[Any]] = {}

    def watch(_site: Any, task: Any, result: Any) -> None:
        local.setdefault(task.round, []).append(result.arrays)

    run, served = tiny.played(tmp_path / "run", watch, adapter={"variant": variant}, **ONE_STAGE)
    assert len(local[2]) == 3
    assert served.keys() == local[2][0].keys()
    for name, value in served.items():
        np.testing.assert_allclose(value, np.mean([arrays[name] for arrays in local[2]], axis=0), rtol=1e-5, atol=1e-6)
    assert any(np.abs(local[2][0][name] - local[2][1][name]).max() > 1e-3 for name in served)
    card = (run.adapter / "README.md").read_text(encoding="utf-8")
    assert f"tags: [{variant}, " in card
    assert "numbers: `PeftModel.from_pretrained(base, folder)` changes the base as the run did" in card
    assert read_adapter(run.adapter)[0].adapter.variant == variant
    assert set(Classifier.from_folder(run.adapter)(["card lost", "send money"])) <= set(tiny.labels)


@pytest.mark.parametrize("variant", often(WITHOUT))
def test_a_private_run_stays_within_its_budget(tiny: Any, tmp_path: Path, variant: str) -> None:
    run, served = tiny.played(tmp_path / "run", adapter={"variant": variant}, privacy=PRIVATE, **ONE_STAGE)
    spent = [row["value"] for row in run.rows() if row["metric"] == "epsilon" and row["round"] == 2]
    assert len(spent) == 6  # of the training and of the scores, for three sites
    assert all(7.8 <= value <= 8.0 for value in spent)
    assert all(np.isfinite(value).all() for value in served.values())


@pytest.mark.parametrize("variant", often(WITHOUT))
def test_lockstep_with_shared_noise_under_masks_takes_a_variant(tiny: Any, tmp_path: Path, variant: str) -> None:
    sections: dict[str, Any] = {
        "train": {"method": "lockstep", "steps": 1, "sampling_rate": 0.6, "batch_size": 8.0, "lr": 0.02},
        "sites": {"count": 3, "held_out": 0.0},
        "continual": {"guards": []},
        "stage": [{"name": "only", "rounds": 2}],
        "secure": {"sum": True},
        "privacy": {**PRIVATE, "noise": "sum"},
    }
    run, _ = tiny.played(tmp_path / "run", adapter={"variant": variant}, **sections)
    spent = [row["value"] for row in run.rows() if row["metric"] == "epsilon" and row["round"] == 2]
    assert all(7.8 <= value <= 8.0 for value in spent)


def test_a_run_goes_on_from_the_folder_of_a_variant_and_refuses_that_of_another(tiny: Any, tmp_path: Path) -> None:
    from llmchain_fl.core.errors import ModelError

    earlier, served = tiny.played(tmp_path / "one", adapter={"variant": "ia3"}, **ONE_STAGE)
    seen: list[Any] = []
    told = {"variant": "ia3", "start": str(earlier.adapter)}
    tiny.played(tmp_path / "two", lambda site, task, result: seen.append(task.arrays), adapter=told, **ONE_STAGE)
    assert all(np.array_equal(seen[0][name], served[name]) for name in served)
    with pytest.raises(ModelError, match="start from an adapter of the same base, variant"):
        tiny.played(tmp_path / "three", adapter={**told, "variant": "bias"}, **ONE_STAGE)


def test_pissa_starts_as_the_base_and_serves_a_plain_pair_of_twice_the_rank(tiny: Any, tmp_path: Path) -> None:
    sent: list[Any] = []

    def watch(_site: Any, task: Any, result: Any) -> None:
        sent.append((task.arrays, result.arrays))

    told = {"rank": 2, "start": "pissa"}
    _, served = tiny.played(tmp_path / "run", watch, adapter=told, **ONE_STAGE)
    start, trained = sent[0]
    modules = sorted({name.removesuffix(".fold_B") for name in start if name.endswith(".fold_B")})
    assert len(modules) == 18
    for module in modules:
        left, right = product_pair(start, module, 8.0)
        assert np.abs(left @ right).max() < 1e-5 * np.abs(start[f"{module}.fold_B"] @ start[f"{module}.fold_A"]).max()
        assert served[f"{module}.lora_A"].shape[0] == 4
        assert not np.array_equal(trained[f"{module}.lora_B"], start[f"{module}.lora_B"])


REFUSED = [
    ({"adapter": {"variant": "ia3"}, "aggregation": {"rule": "ffa"}}, 'rule "ffa" averages factors: use "fedit"'),
    ({"adapter": {"variant": "ia3"}, "aggregation": {"robust": "median"}}, "aggregation.robust screens changes of it"),
    ({"adapter": {"variant": "miss", "site_ranks": [1, 2, 2]}}, "leave adapter.site_ranks and adapter.site_alphas"),
    ({"adapter": {"variant": "bias", "start": "pissa"}}, "is the start of a pair of factors"),
    ({"adapter": {"variant": "bias"}, "continual": {"guards": ["anchor"]}}, "moves no pair of factors"),
    ({"adapter": {"variant": "bias"}, "continual": {"guards": ["slots"]}}, "moves no pair of factors"),
    ({"adapter": {"start": "pissa"}, "aggregation": {"rule": "flora"}}, "needs common factors that stay"),
    ({"adapter": {"start": "pissa"}, "continual": {"guards": ["slots"]}}, 'guard "slots" makes pairs of its own'),
    ({"adapter": {"variant": "adalora"}}, "one of lora, ia3, layer-norm, bias, miss, dora-magnitude"),
]


@pytest.mark.parametrize(("sections", "reason"), REFUSED)
def test_what_does_not_go_together_is_refused_with_its_reason(tiny: Any, sections: Any, reason: str) -> None:
    with pytest.raises(ConfigError) as caught:
        tiny.config(**sections)
    assert reason in str(caught.value)


def test_a_rule_that_is_named_is_kept_and_else_the_one_that_averages_arrays_is_taken(tiny: Any) -> None:
    assert RULES[tiny.config(adapter={"variant": "ia3"}).aggregation.rule].any_variant
    assert tiny.config(adapter={"rank": 4}).aggregation.rule == tiny.config().aggregation.rule
