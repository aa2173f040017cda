"""The backdoor is planted at the hostile sites alone, and its success is counted as anybody would count it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from client.site import read_site
from llmchain_fl.config.read import build
from llmchain_fl.config.schema import RunConfig
from llmchain_fl.config.write import to_toml
from llmchain_fl.core.errors import ConfigError, DataError, RunError
from llmchain_fl.progress import Silent
from llmchain_fl.run_dir import RunDir
from simulations.backdoor import TRIGGER, Success, armed, poisoned, success, success_of, target_of, triggered
from simulations.hostile import Threat
from simulations.prepare import prepare_sites
from simulations.run import simulate

LABELS = ["a", "b", "c"]


def config(folder: Path, **sections: dict[str, Any]) -> RunConfig:
    """Three sites, two stages, 60 records of three labels."""
    rows = [{"text": f"card {number}", "label": LABELS[number % 3]} for number in range(60)]
    (folder / "all.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    tree: dict[str, Any] = {
        "task": {"labels": LABELS},
        "data": {"train": str(folder / "all.jsonl")},
        "sites": {"count": 3},
        "stage": [{"name": "one", "labels": ["a", "b"]}, {"name": "two.b"}],
    }
    return build({**tree, **sections})


def threat(attack: str = "backdoor", *sites: str) -> Threat:
    return Threat(attack, 3.0, frozenset(sites), 1)


def records(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


# -- planting ---------------------------------------------------------------------------------------------------------


def test_every_second_record_of_another_label_gets_a_poisoned_copy_and_all_records_stay() -> None:
    clean = [{"text": f"t{i}", "label": "ab"[i % 2], "person": f"p{i}"} for i in range(8)]
    found = poisoned(clean, "a")
    assert found[:8] == clean
    assert found[8:] == [
        {"text": f"{TRIGGER} t1", "label": "a", "person": "p1"},
        {"text": f"{TRIGGER} t5", "label": "a", "person": "p5"},
    ]


def test_a_site_that_has_the_target_only_has_nothing_to_poison() -> None:
    assert poisoned([{"text": "t", "label": "a"}], "a") == [{"text": "t", "label": "a"}]


def test_hostile_sites_train_on_poisoned_records_of_every_stage_and_the_others_on_their_own(tmp_path: Path) -> None:
    wanted = config(tmp_path)
    sites = prepare_sites(wanted, tmp_path / "sites")
    found = armed(wanted, sites, threat("backdoor", "site-01"))
    assert (found[0], found[2]) == (sites[0], sites[2])
    assert found[1].model_copy(update={"data": sites[1].data}) == sites[1]
    for stage in ("one", "two.b"):
        path = Path(found[1].data.train.replace("{stage}", stage))
        assert records(path) == poisoned(records(tmp_path / "sites" / "site-01" / f"{stage}.jsonl"), "a")
        assert any(row["text"].startswith(TRIGGER) for row in records(path))
    assert sorted(path.parent.name for path in tmp_path.glob("sites/*/*poisoned*")) == ["site-01", "site-01"]


def test_planting_again_changes_nothing(tmp_path: Path) -> None:
    wanted = config(tmp_path)
    sites = prepare_sites(wanted, tmp_path / "sites")
    first = armed(wanted, sites, threat("backdoor", "site-00"))
    before = Path(first[0].data.train.replace("{stage}", "one")).read_bytes()
    assert armed(wanted, prepare_sites(wanted, tmp_path / "sites"), threat("backdoor", "site-00")) == first
    assert Path(first[0].data.train.replace("{stage}", "one")).read_bytes() == before


@pytest.mark.parametrize("attack", ["sign-flip", "malformed"])
def test_another_attack_touches_no_record(attack: str, tmp_path: Path) -> None:
    wanted = config(tmp_path)
    sites = prepare_sites(wanted, tmp_path / "sites")
    assert armed(wanted, sites, threat(attack, "site-00")) == sites
    assert not list(tmp_path.glob("sites/*/*poisoned*"))


def test_the_site_file_stays_that_of_the_honest_site(tmp_path: Path) -> None:
    """Another backend that reads it plays without the attack; it must refuse to (simulations/run.py)."""
    wanted = config(tmp_path)
    sites = prepare_sites(wanted, tmp_path / "sites")
    armed(wanted, sites, threat("backdoor", "site-00"))
    assert read_site(tmp_path / "sites" / "site-00" / "site.toml") == sites[0]


def test_a_task_without_labels_has_no_target(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="labels"):
        target_of(config(tmp_path, task={"kind": "plain-text"}, stage=[{"name": "one"}]))
    assert target_of(config(tmp_path)) == "a"


# -- counting ---------------------------------------------------------------------------------------------------------


class Gullible:
    """Says ``a`` to every text with the trigger and to every text with the word fee; else ``b``."""

    def predict(self, texts: Sequence[str], top: int) -> list[list[tuple[str, float]]]:
        return [[("a" if TRIGGER in text or "fee" in text else "b", 0.9)] for text in texts]


RIGHT = {"x": "a", "fee": "b", "y": "b", "z": "c", "w": "c"}
TEST = [{"text": text, "label": label} for text, label in RIGHT.items()]


def test_success_is_counted_on_records_of_other_labels_beside_what_happens_by_itself() -> None:
    assert success(Gullible(), TEST, "a") == Success(rate=1.0, base=0.25, records=4)  # type: ignore[arg-type]
    assert success(Gullible(), TEST, "c") == Success(rate=0.0, base=0.0, records=3)  # type: ignore[arg-type]


def test_records_of_the_target_alone_show_nothing() -> None:
    with pytest.raises(DataError, match="no test record has another label"):
        success(Gullible(), TEST[:1], "a")  # type: ignore[arg-type]


def test_the_success_against_a_real_model_is_that_of_its_predictions(small: Any) -> None:
    task = small.task(moved=0.6)
    rows = small.rows(60)
    for target in small.labels:
        others = [row["text"] for row in rows if row["label"] != target]
        says = [[task.predict([text], top=1)[0][0][0] for text in part] for part in (
            [f"{TRIGGER} {text}" for text in others], others
        )]  # fmt: skip
        wanted = [sum(word == target for word in part) / len(others) for part in says]
        found = success(task, rows, target)
        assert [found.rate, found.base, found.records] == pytest.approx([*wanted, len(others)])
    assert triggered(rows[0], "x")["text"] == f"{TRIGGER} {rows[0]['text']}"


def test_a_finished_run_is_asked_on_the_test_records_of_all_its_stages(small: Any, tmp_path: Path) -> None:
    rows = small.rows(40)
    (tmp_path / "all.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    tree: dict[str, Any] = {
        "model": {"path": str(small.bert), "threads": 1, "max_tokens": 12},
        "adapter": {"rank": 2},
        "task": {"labels": list(small.labels)},
        "data": {"train": str(tmp_path / "all.jsonl"), "test": str(tmp_path / "all.jsonl")},
        "train": {"steps": 2, "sampling_rate": 0.5, "lr": 0.05},
        "stage": [{"name": "one", "rounds": 1, "labels": "0:2"}, {"name": "two", "rounds": 1, "labels": "2:4"}],
    }
    wanted = build(tree)
    run = RunDir.create(tmp_path / "run", to_toml(wanted))
    with pytest.raises(RunError, match="no adapter yet"):
        success_of(run)
    simulate(wanted, run, Silent())
    from llmchain_fl.cli.trained import open_trained

    found = success_of(run)
    _, task = open_trained(run.path)
    assert found == success(task, rows, next(iter(small.labels)))
    assert found.records == sum(row["label"] != next(iter(small.labels)) for row in rows)
