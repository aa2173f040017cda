"""Whole runs over a tiny federation: what is written, that it can be used, and that a killed run ends the same."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import PeftModel
from safetensors.numpy import load_file
from transformers import AutoModel

from llmchain_fl.adapter.files import read_adapter
from llmchain_fl.aggregation import RULES
from llmchain_fl.cli.main import main
from llmchain_fl.cli.trained import open_trained
from llmchain_fl.config.read import build
from llmchain_fl.config.schema import RunConfig
from llmchain_fl.config.write import to_toml
from llmchain_fl.core.base_model import locate
from llmchain_fl.core.errors import ConfigError
from llmchain_fl.data.generated import generate
from llmchain_fl.progress import RoundReport, Silent
from llmchain_fl.run_dir import RunDir
from llmchain_fl.run_ends import RunStopped
from simulations.run import simulate

STAGES = [
    {"name": "cards", "rounds": 2, "where": {"stage": "cards"}},
    {"name": "payments", "rounds": 2, "where": {"stage": "payments"}},
]


def small(private: bool = False, **parts: dict[str, object]) -> RunConfig:
    """Two stages, three sites, 2 + 2 rounds, the real MiniLM with one adapted layer."""
    tree: dict[str, object] = {
        "model": {"threads": 1, "max_tokens": 24},
        "adapter": {"rank": 4, "last_layers": 1, "targets": ["query", "value"]},
        "task": {"labels": "generated:bank-messages"},
        "data": {
            "train": "generated:bank-messages",
            "test": "generated:bank-messages",
            "train_size": 300,
            "test_size": 60,
            "baseline": 0,
        },
        "sites": {"count": 3, "partition": "dirichlet", "held_out": 0.1},
        "train": {"steps": 2, "sampling_rate": 0.2, "batch_size": 8, "lr": 0.01},
        "continual": {"guards": ["distill", "ema"]},
        "stage": STAGES,
    }
    if private:
        tree["privacy"] = {"enabled": True, "epsilon": 8.0}
    for section, values in parts.items():
        tree[section] = {**tree.get(section, {}), **values}  # type: ignore[dict-item]
    return build(tree)


class StopAfter(Silent):
    """Pulls the plug after a round."""

    def __init__(self, number: int) -> None:
        self._number = number

    def round_finished(self, report: RoundReport) -> None:
        if report.round == self._number:
            raise KeyboardInterrupt


def play(config: RunConfig, path: Path) -> RunDir:
    run = RunDir.create(path, to_toml(config))
    simulate(config, run, Silent())
    return run


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    return play(small(), tmp_path_factory.mktemp("runs") / "whole")


def test_a_run_directory_holds_everything_a_person_looks_for(finished: RunDir) -> None:
    for part in (
        finished.config,
        finished.metrics,
        finished.privacy,
        finished.report,
        finished.events,
        finished.adapter,
    ):
        assert part.exists(), part
    assert finished.stage_adapter(0, "cards").is_dir()
    assert finished.stage_adapter(1, "payments").is_dir()
    metrics = {row["metric"] for row in finished.rows()}
    assert {
        "accuracy",
        "r_matrix",
        "average_accuracy",
        "forgetting",
        "bwt",
        "la",
        "bytes_up",
        "bytes_down",
        "seconds",
    } <= metrics


def test_the_r_matrix_is_measured_on_every_task_after_every_stage(finished: RunDir) -> None:
    cells = {(row["stage"], row["task"]) for row in finished.rows() if row["metric"] == "r_matrix"}
    assert cells == {(stage, task) for stage in (0, 1) for task in ("cards", "payments")}


def test_sites_are_scored_on_their_own_records(finished: RunDir) -> None:
    sites = {row["site"] for row in finished.rows() if row["scope"] == "site" and row["metric"] == "accuracy"}
    assert sites == {"site-00", "site-01", "site-02"}


def test_ffa_sends_only_b_and_never_changes_a(finished: RunDir) -> None:
    _, arrays = read_adapter(finished.adapter)
    _, first = read_adapter(finished.stage_adapter(0, "cards"))
    assert all(np.array_equal(value, first[name]) for name, value in arrays.items() if name.endswith("lora_A"))
    b_bytes = sum(value.nbytes for name, value in arrays.items() if name.endswith("lora_B"))
    assert {row["value"] for row in finished.rows() if row["metric"] == "bytes_up"} == {float(b_bytes)}


def test_a_teacher_costs_as_many_bytes_as_what_is_trained(finished: RunDir) -> None:
    down = {row["round"]: row["value"] for row in finished.rows() if row["metric"] == "bytes_down"}
    up = next(row["value"] for row in finished.rows() if row["metric"] == "bytes_up")
    assert down[1] == down[2]
    assert down[3] == down[4] == down[1] + up + 4  # and its scale


def test_peft_alone_opens_the_adapter_and_computes_the_same(finished: RunDir) -> None:
    _, task = open_trained(finished.path)
    examples = task.encode([{"text": "my card has not come yet"}])
    ids, mask = examples.batch([0], 0, torch.device("cpu"))
    with torch.no_grad():
        ours = task.resident.forward(ids, mask, {}, [0]).last_hidden_state
        outside = PeftModel.from_pretrained(
            AutoModel.from_pretrained(locate("minilm").path), str(finished.adapter)
        ).eval()
        theirs = outside(input_ids=ids, attention_mask=mask).last_hidden_state
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_the_same_seed_gives_the_same_run(finished: RunDir, tmp_path: Path) -> None:
    again = play(small(), tmp_path / "again")
    assert arrays_of(again) == arrays_of(finished)


@pytest.mark.thorough
def test_another_seed_gives_another_run(finished: RunDir, tmp_path: Path) -> None:
    config = small().model_copy(update={"seed": 2})
    assert arrays_of(play(config, tmp_path / "other")) != arrays_of(finished)


def arrays_of(run: RunDir) -> dict[str, bytes]:
    return {name: value.tobytes() for name, value in load_file(run.adapter / "adapter_model.safetensors").items()}


@pytest.mark.parametrize("after", [1, 2, 3])
@pytest.mark.part(1)
def test_a_run_stopped_after_any_round_resumes_to_the_same_result(after: int, finished: RunDir, tmp_path: Path) -> None:
    config = small()
    run = RunDir.create(tmp_path / "stopped", to_toml(config))
    with pytest.raises(KeyboardInterrupt):
        simulate(config, run, StopAfter(after))
    assert run.report.exists()
    simulate(config, run, Silent())
    went_on, whole = (load_file(one.adapter / "adapter_model.safetensors") for one in (run, finished))
    assert went_on.keys() == whole.keys()
    for name, value in whole.items():  # a text's frozen outputs come from whichever batch was first, and Adam
        np.testing.assert_allclose(went_on[name], value, rtol=0, atol=1e-4, err_msg=name)
    keep = ("accuracy", "r_matrix", "average_accuracy", "forgetting", "bytes_up")
    assert [row for row in run.rows() if row["metric"] in keep] == [
        row for row in finished.rows() if row["metric"] in keep
    ]


@pytest.mark.slow
@pytest.mark.thorough
def test_a_run_killed_at_any_moment_resumes_to_the_same_result(finished: RunDir, tmp_path: Path) -> None:
    config = tmp_path / "small.toml"
    config.write_text(to_toml(small()))
    out = tmp_path / "killed"
    line = [sys.executable, "-c", "from llmchain_fl.cli.main import main; main()", "simulate"]
    begun = subprocess.Popen(
        [*line, str(config), "--out", str(out)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=os.environ
    )
    deadline = time.monotonic() + 120
    while not list(out.glob("state/round-*")) and time.monotonic() < deadline:
        time.sleep(0.05)
    begun.send_signal(signal.SIGKILL)
    begun.wait()
    assert list(out.glob("state/round-*")), "the run was killed before its first round"
    ended = subprocess.run(
        [*line, "--resume", str(out)], capture_output=True, text=True, timeout=240, env=os.environ, check=False
    )
    assert ended.returncode == 0, ended.stderr
    assert arrays_of(RunDir.open(out)) == arrays_of(finished)


def test_a_private_run_records_epsilon_with_its_terms_and_stays_within_the_budget(tmp_path: Path) -> None:
    run = play(small(private=True), tmp_path / "private")
    privacy = json.loads(run.privacy.read_text())
    assert privacy["private"]
    assert (privacy["unit"], privacy["delta"], privacy["accountant"]) == ("person", 1e-5, "pld")
    for site in privacy["sites"].values():
        assert 7.9 < site["epsilon"] <= 8.0 < site["epsilon_rdp"]
        assert site["steps"] == 8
    rows = [row for row in run.rows() if row["metric"] == "epsilon" and row["site"] == "site-00"]
    assert [row["value"] for row in rows] == sorted(row["value"] for row in rows)
    assert len(rows) == 6  # four rounds, and what the noised scores cost at the end of two stages
    assert all({"delta", "unit", "accountant"} <= set(row) for row in rows)
    for site in ("site-00", "site-01", "site-02"):
        assert len((run.sites / site / "state" / site / "events.jsonl").read_text().splitlines()) >= 4


def test_a_private_run_stops_before_the_target_is_passed(tmp_path: Path) -> None:
    config = small(privacy={"enabled": True, "noise_multiplier": 0.8, "epsilon": 6.0})
    with pytest.raises(RunStopped, match=r"stopped after . of 4 rounds: every site has used up its budget"):
        play(config, tmp_path / "short")
    run = RunDir.open(tmp_path / "short")
    spent = json.loads(run.privacy.read_text())["sites"]
    assert all(0 < site["epsilon"] <= 6.0 for site in spent.values())
    assert all(site["rounds"] < 4 for site in spent.values())


def test_a_private_run_stopped_and_resumed_pays_for_each_round_once(tmp_path: Path) -> None:
    config = small(private=True)
    run = RunDir.create(tmp_path / "stopped", to_toml(config))
    with pytest.raises(KeyboardInterrupt):
        simulate(config, run, StopAfter(2))
    simulate(config, run, Silent())
    spent = json.loads(run.privacy.read_text())["sites"]
    assert all(site["rounds"] == 4 and site["epsilon"] <= 8.0 for site in spent.values())


@pytest.mark.thorough
def test_fedit_measures_its_product_error(tmp_path: Path) -> None:
    run = play(small(aggregation={"rule": "fedit"}), tmp_path / "fedit")
    errors = [row["value"] for row in run.rows() if row["metric"] == "product_error"]
    assert len(errors) == 4
    assert all(0 < error < 1 for error in errors)


def test_a_trained_head_travels_and_is_saved(tmp_path: Path) -> None:
    run = play(small(task={"head": "trained"}), tmp_path / "head")
    work, arrays = read_adapter(run.adapter)
    assert arrays["head.weight"].shape == (24, 384)
    assert np.abs(arrays["head.weight"]).max() > 0
    assert work.task.head_size == 24


def command(argv: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    """What the command line says; it must end well."""
    monkeypatch.setattr(sys, "argv", ["llmchain-fl", *argv])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert not stopped.value.code
    return capsys.readouterr().out


def test_predict_gives_labels_with_their_probabilities(
    finished: RunDir, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said = command(["predict", str(finished.path), "somebody stole my card", "--top", "2"], monkeypatch, capsys)
    assert said.startswith("somebody stole my card\n")
    assert said.count("%") == 2


def test_evaluate_gives_the_score_that_the_run_recorded(
    finished: RunDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [row for row in generate("bank-messages", 1, 60, "test") if row["stage"] == "payments"]
    data = tmp_path / "test.jsonl"
    data.write_text("".join(json.dumps({"message": row["text"], "label": row["label"]}) + "\n" for row in rows))
    said = command(["evaluate", str(finished.path), str(data), "--column", "text=message"], monkeypatch, capsys)
    recorded = [
        row["value"]
        for row in finished.rows()
        if row["metric"] == "accuracy" and row["task"] == "payments" and row["scope"] == "global"
    ]
    assert f"records {len(rows)}" in said
    assert float(said.split()[1]) == pytest.approx(recorded[-1], abs=1e-4)


def test_report_is_written_anew(
    finished: RunDir, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = finished.report.read_text()
    finished.report.unlink()
    said = command(["report", str(finished.path)], monkeypatch, capsys)
    assert "Average accuracy" in said
    assert len(finished.report.read_text()) == len(before)


@pytest.mark.parametrize("private", [False, True])
@pytest.mark.parametrize("rule", sorted(name for name, rule in RULES.items() if not rule.schedule(1).keeps))
@pytest.mark.part(2)
def test_every_rule_of_the_table_plays_a_run(tiny: Any, tmp_path: Path, rule: str, private: bool) -> None:
    privacy = {"enabled": private, "noise_multiplier": 1.0}
    config = tiny.config(
        aggregation={"rule": rule},
        continual={"guards": ["distill"]},
        privacy=privacy,
        sites={"held_out": 0.0},
        task={"head": "label-text" if RULES[rule].trained else "trained"},
    )
    run = play(config, tmp_path / rule)
    _, arrays = read_adapter(run.adapter)
    moved = "lora_B" if RULES[rule].trained else "head.bias"
    assert any(value.any() for name, value in arrays.items() if name.endswith(moved))
    admitted = [row for row in run.rows() if row["metric"] == "update_norm"]
    assert len(admitted) == 6
    if rule == "fedsvd":
        for name, value in arrays.items():
            if name.endswith("lora_A"):
                np.testing.assert_allclose(value @ value.T, np.eye(len(value)), atol=1e-5)


@pytest.mark.thorough
def test_a_server_optimizer_goes_on_with_its_moments_after_a_stop(tiny: Any, tmp_path: Path) -> None:
    config = tiny.config(aggregation={"optimizer": "adam", "optimizer_lr": 0.02}, sites={"held_out": 0.0})
    whole = play(config, tmp_path / "whole")
    run = RunDir.create(tmp_path / "stopped", to_toml(config))
    with pytest.raises(KeyboardInterrupt):
        simulate(config, run, StopAfter(1))
    simulate(config, run, Silent())
    (_, first), (_, second) = read_adapter(whole.adapter), read_adapter(run.adapter)
    assert first.keys() == second.keys()
    assert all(np.array_equal(first[name], second[name]) for name in first)
    plain = play(tiny.config(sites={"held_out": 0.0}), tmp_path / "plain")
    assert any(not np.array_equal(first[name], value) for name, value in read_adapter(plain.adapter)[1].items())


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ({"continual": {"guards": ["ema"]}, "aggregation": {"rule": "fedsvd"}}, "re-factorises them every round"),
        (
            {
                "aggregation": {"rule": "flexlora"},
                "continual": {"guards": []},
                "sites": {"count": 3, "minimum": 2},
                "privacy": {"enabled": True, "unit": "site", "noise_multiplier": 1.0},
            },
            "is not linear",
        ),
    ],
)
def test_what_a_rule_cannot_do_is_refused_before_the_first_round(
    tiny: Any, tmp_path: Path, parts: dict[str, dict[str, object]], words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        play(tiny.config(**parts), tmp_path / "run")
