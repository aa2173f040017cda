"""Dealing out a stream: who gets which stage, and that nothing else about the dealing changes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llmchain_fl.config.schema import RunConfig
from llmchain_fl.core.errors import ConfigError, DataError
from simulations.prepare import prepare_sites


def streamed(train: Path, count: int, *, rounds: int = 2, held_out: float = 0.0, **sections: Any) -> RunConfig:
    """Stages x and y of so many rounds, told apart by the column ``stage``."""
    tree: dict[str, Any] = {
        "task": {"labels": ["a", "b"]},
        "data": {"train": str(train)},
        "sites": {"count": count, "held_out": held_out},
        "stage": [{"name": name, "rounds": rounds, "where": {"stage": name}} for name in "xy"],
    }
    return RunConfig.model_validate({**tree, **sections})


def two_stages(path: Path, count: int) -> Path:
    """``count`` records, two in three of them of stage y."""
    rows = [{"text": f"card {i}", "label": "ab"[i % 2], "stage": "xyy"[i % 3]} for i in range(count)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def texts(path: Path) -> list[str]:
    return [json.loads(line)["text"] for line in path.read_text().splitlines()]


def dealt(config: RunConfig, folder: Path) -> dict[str, list[str]]:
    """Site/file -> texts."""
    prepare_sites(config, folder)
    return {f"{file.parent.name}/{file.stem}": texts(file) for file in sorted(folder.glob("*/*.jsonl"))}


def test_neither_order_nor_arrivals_change_what_is_dealt_to_whom(tmp_path: Path) -> None:
    source = two_stages(tmp_path / "all.jsonl", 120)
    plain = dealt(streamed(source, 2, held_out=0.2), tmp_path / "plain")
    ordered = dealt(streamed(source, 2, held_out=0.2, stream={"order": ["y", "x"]}), tmp_path / "ordered")
    arrival = {"site-01": {"joins": 3}}
    late = dealt(streamed(source, 2, held_out=0.2, stream={"arrival": arrival}), tmp_path / "late")
    assert ordered == plain
    assert plain.keys() - late.keys() == {"site-01/x", "site-01/x.held_out"}
    assert late.items() <= plain.items()


def test_a_joint_run_has_the_very_training_records_of_the_sequence(tmp_path: Path) -> None:
    source = two_stages(tmp_path / "all.jsonl", 120)
    plain = dealt(streamed(source, 2, held_out=0.2), tmp_path / "plain")
    joint = dealt(streamed(source, 2, held_out=0.2, stream={"play": "joint"}), tmp_path / "joint")
    for site in ("site-00", "site-01"):
        assert joint.pop(f"{site}/joint") == plain[f"{site}/x"] + plain[f"{site}/y"]
    assert joint == plain


def test_a_blurred_run_has_the_same_records_at_every_site_and_some_in_other_stages(tmp_path: Path) -> None:
    source = two_stages(tmp_path / "all.jsonl", 120)
    plain = dealt(streamed(source, 2), tmp_path / "plain")
    blurry = dealt(streamed(source, 2, stream={"kind": "blurry", "blur": 0.5}), tmp_path / "blurry")
    for site in ("site-00", "site-01"):
        both = [f"{site}/x", f"{site}/y"]
        assert sorted(text for key in both for text in blurry[key]) == sorted(t for key in both for t in plain[key])
        assert [len(blurry[key]) for key in both] == [len(plain[key]) for key in both]
        moved = len(set(blurry[both[0]]) - set(plain[both[0]]))
        assert moved == min(round(0.5 * len(plain[key])) for key in both)


def by_hospital(path: Path) -> Path:
    """Hospital north has records in both stages, east in stage y only, and south in stage x only."""
    held = {"x": ["north", "south"], "y": ["east", "north"]}
    rows = [
        {"text": f"{hospital} {stage} {i}", "label": "a", "stage": stage, "hospital": hospital}
        for stage, hospitals in held.items()
        for hospital in hospitals
        for i in range(4)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize("way", ["natural", "column"])
def test_a_hospital_is_the_same_site_in_every_stage_also_where_it_is_in_one_only(way: str, tmp_path: Path) -> None:
    sites = {"count": 3, "partition": way, "column": "hospital"}
    arrival = {"site-00": {"order": ["y"]}, "site-02": {"order": ["x"]}}
    wanted = streamed(by_hospital(tmp_path / "all.jsonl"), 3, sites=sites, stream={"arrival": arrival})
    found = {key: {text.partition(" ")[0] for text in rows} for key, rows in dealt(wanted, tmp_path / "s").items()}
    assert found == {"site-00/y": {"east"}, "site-01/x": {"north"}, "site-01/y": {"north"}, "site-02/x": {"south"}}


def test_a_site_without_records_of_a_stage_that_it_is_sent_to_is_an_error_that_names_both(tmp_path: Path) -> None:
    sites = {"count": 3, "partition": "natural", "column": "hospital"}
    with pytest.raises(DataError, match='site-00 has no record in stage "x"'):
        prepare_sites(streamed(by_hospital(tmp_path / "all.jsonl"), 3, sites=sites), tmp_path / "sites")


def test_an_arrival_of_a_site_that_is_not_there_stops_before_anything_is_dealt(tmp_path: Path) -> None:
    wanted = streamed(two_stages(tmp_path / "all.jsonl", 30), 2, stream={"arrival": {"site-1": {"joins": 2}}})
    with pytest.raises(ConfigError, match=r'"site-1": there is no such site; did you mean site-01\?'):
        prepare_sites(wanted, tmp_path / "sites")
    assert not list(tmp_path.glob("sites/*"))


def test_stages_that_do_not_fit_the_label_list_stop_before_anything_is_dealt(tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text("a\nb\n")
    wanted = streamed(two_stages(tmp_path / "all.jsonl", 30), 2, task={"labels": str(tmp_path / "labels.txt")})
    wanted = wanted.model_copy(update={"stage": [stage.model_copy(update={"labels": ["c"]}) for stage in wanted.stage]})
    with pytest.raises(ConfigError, match="has 2 faults"):
        prepare_sites(wanted, tmp_path / "sites")
    assert not list(tmp_path.glob("sites/*"))
