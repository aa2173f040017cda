"""``llmchain-fl check``: what can be known without a round; records are counted and never quoted."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from llmchain_fl.cli.check import check_before, check_cells
from llmchain_fl.cli.main import app
from llmchain_fl.config.read import read_config
from llmchain_fl.core.errors import ConfigError, LlmchainError, RunError
from llmchain_fl.planning.checks import check_records
from llmchain_fl.planning.findings import Findings

CANARY = "zebra"
PRIVATE = ("privacy.enabled=true", "privacy.epsilon=8")
Rows = list[dict[str, Any]]


def rows(count: int, first: int = 0, **more: Any) -> Rows:
    return [{"text": f"{CANARY} {n}", "label": ("lost_card", "transfer")[n % 2], **more} for n in range(first, count)]


def write(path: Path, records: Sequence[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return str(path)


def scenario(folder: Path, train: Rows, test: Rows | None, *, labels: str = '["lost_card", "transfer"]') -> Path:
    path = folder / "s.toml"
    tested = f'test = "{write(folder / "test.jsonl", test)}"' if test is not None else ""
    path.write_text(
        f'[task]\nlabels = {labels}\n[data]\ntrain = "{write(folder / "train.jsonl", train)}"\n{tested}\n'
        '[[stage]]\nname = "one"\nrounds = 2\n'
    )
    return path


def told(path: Path, *settings: str) -> Findings:
    found = check_records(read_config(path, list(settings)))
    assert CANARY not in repr(found)
    return found


def lines(found: Findings, *levels: str) -> list[str]:
    return [one.text for one in found if one.level in (levels or ("fault", "warning"))]


def test_nothing_is_wrong_with_records_that_are_right(tmp_path: Path) -> None:
    found = told(scenario(tmp_path, rows(40), rows(50, 40)))
    assert lines(found) == []
    assert lines(found, "fact") == ['stage "one": 40 records to train, 10 records to test']


TRAIN, APART = rows(40), rows(50, 40)
PERSONS = [{**row, "person": f"p{n // 4}"} for n, row in enumerate(TRAIN)]
WARNINGS: dict[str, tuple[Rows, Rows | None, Sequence[str], str]] = {
    "the same records for both": (TRAIN, TRAIN, (), "every test record is a training record"),
    "some records in both": (TRAIN, APART + TRAIN[:3], (), "3 of 13 test records are training records, too"),
    "many doubles": (TRAIN * 2, APART, (), "80 records to train (40 of them repeat another)"),
    "no test": (TRAIN, None, (), "nothing is tested"),
    "labels without a record": (TRAIN[::2], APART, (), "no training record has 1 of the 2 labels"),
    "persons under the unit record": (
        PERSONS,
        APART,
        (*PRIVATE, "privacy.unit=record"),
        "the unit is one record, and one person has 4",
    ),
    "some without a name": (PERSONS[:30] + TRAIN[30:], APART, PRIVATE, "10 of 40 training records name no person"),
}


@pytest.mark.parametrize("name", WARNINGS)
def test_what_is_worth_a_look_is_one_warning_with_numbers(name: str, tmp_path: Path) -> None:
    train, test, settings, words = WARNINGS[name]
    found = told(scenario(tmp_path, train, test), *settings)
    assert len(lines(found)) == 1
    assert words in lines(found, "warning")[0]


def test_with_the_unit_person_nobody_named_is_a_fault_unless_persons_are_declared_or_made_up(tmp_path: Path) -> None:
    path = scenario(tmp_path, TRAIN, APART)
    assert lines(told(path, *PRIVATE), "fault") == ['stage "one": 40 of 40 training records name no person']
    for setting in ("data.one_record_per_person=true", "data.made_up_persons=3", "privacy.unit=record"):
        assert lines(told(path, *PRIVATE, setting), "fault") == []


def test_the_label_list_is_asked_about_the_records_that_a_stage_keeps(tmp_path: Path) -> None:
    mixed = [{**row, "ward": "a"} for row in TRAIN] + [{"text": "x", "label": "foreign", "ward": "b"}]
    path = scenario(tmp_path, mixed, APART)
    assert "1 record (line 41) has a label that is not" in lines(told(path), "fault")[0]
    path.write_text(path.read_text() + 'where = {ward = "a"}\n')
    assert "there is no column ward" in lines(told(path), "fault")[0]  # in test.jsonl
    path.write_text(path.read_text().replace('test = "', '# test = "'))
    assert lines(told(path), "fault") == []


def test_with_real_sites_training_records_are_not_looked_for(tmp_path: Path) -> None:
    path = scenario(tmp_path, TRAIN, APART)
    (tmp_path / "train.jsonl").unlink()
    found = check_records(read_config(path), train=False)
    assert lines(found) == []
    assert lines(found, "fact") == ['stage "one": training records at the sites, 10 records to test']


def test_all_faults_of_all_stages_are_told_at_once(tmp_path: Path) -> None:
    path = scenario(tmp_path, TRAIN, APART)
    path.write_text(path.read_text() + '[[stage]]\nname = "two"\nrounds = 1\ntrain = "gone.csv"\ntest = "away.csv"\n')
    assert [line.partition(":")[0] for line in lines(told(path), "fault")] == ["gone.csv", "away.csv"]


def test_each_source_is_read_once_however_many_stages_and_cells_share_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from llmchain_fl.data import stages

    read: list[str] = []
    plain = stages.read_rows
    monkeypatch.setattr(stages, "read_rows", lambda spec, **named: (read.append(spec), plain(spec, **named))[1])
    path = scenario(tmp_path, TRAIN, APART)
    path.write_text(path.read_text() + '[[stage]]\nname = "two"\nrounds = 1\n')
    settings = (["seed=1"], ["seed=2", "train.lr=0.1"], ["sites.count=3"], [f"continual.public={tmp_path}/test.jsonl"])
    check_cells(read_config(path, list(one)) for one in settings)
    assert sorted(Path(spec).name for spec in read) == ["test.jsonl", "test.jsonl", "train.jsonl"]


def test_before_a_run_faults_are_raised_together_and_a_folder_in_use_is_refused(tmp_path: Path) -> None:
    path = scenario(tmp_path, TRAIN, APART)
    check_before(read_config(path), tmp_path / "new")
    with pytest.raises(RunError, match="is there already and not empty"):
        check_before(read_config(path), tmp_path)
    with pytest.raises(ConfigError) as caught:
        check_before(read_config(path, ["data.train=gone.csv", "data.test=away.csv"]))
    assert len(caught.value.faults) == 2


# -- with a model -----------------------------------------------------------------------------------------------------


@pytest.fixture
def bank(tmp_path: Path, small: Any) -> Path:
    """Records in the words of the tiny models, and a run over the tiny BERT."""
    made = small.rows(60)
    path = scenario(tmp_path, made[:40], made[40:], labels=json.dumps(small.labels).replace(":", " ="))
    path.write_text(
        f'[model]\npath = "{small.bert}"\nmax_tokens = 16\nthreads = 1\n[adapter]\nrank = 2\n' + path.read_text()
    )
    return path


def of_model(path: Path, *settings: str) -> Findings:
    from simulations.dummy import check_model

    return check_model(read_config(path, list(settings)))


def test_a_model_that_fits_tells_its_bytes_its_tokens_and_takes_a_private_step(bank: Path) -> None:
    found = of_model(bank, *PRIVATE, "data.one_record_per_person=true")
    assert lines(found) == []
    facts = "\n".join(lines(found, "fact"))
    assert "numbers are trained" in facts
    assert "a round and site" in facts
    assert "0.0% are cut at model.max_tokens = 16" in facts


MASKED = (
    *(*PRIVATE, "data.one_record_per_person=true", "task.head=trained", "aggregation.rule=head-only", "sites.count=3"),
    *("train.method=lockstep", "train.steps=1", "secure.sum=true", "privacy.noise=sum"),
)


def test_a_run_of_masked_sums_is_tried_as_its_sites_would_and_noise_that_drowns_it_is_told(bank: Path) -> None:
    found = of_model(bank, *MASKED, "train.batch_size=1000")
    assert lines(found) == []
    fact = next(line for line in lines(found, "fact") if "numbers are trained" in line)
    assert f" {len(read_config(bank).task.labels) * 33:,} numbers" in fact  # the head alone, of a base of width 32
    (line,) = lines(of_model(bank, *MASKED, "train.batch_size=0.5"), "warning")
    assert "hardly anything" in line


def test_texts_that_are_cut_and_tokens_that_nobody_knows_are_told(bank: Path, tmp_path: Path) -> None:
    assert "are cut at model.max_tokens = 6" in lines(of_model(bank, "model.max_tokens=6"), "warning")[0]
    write(tmp_path / "test.jsonl", [{"text": f"quux{n} frobnicate", "label": "other"} for n in range(9)])
    assert lines(of_model(bank), "fault") == [
        "100% of all tokens are unknown to the base's tokenizer: nothing can be learned from them"
    ]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["model.path=./gone"], "gone"),
        (["model.max_tokens=49"], "reads at most 48 tokens"),
        (['adapter.targets=["no_such_layer"]'], "no_such_layer"),
        (["compression.link_kbit=0.001"], "compression"),
        (["train.lr=100", "train.optimizer=sgd", "privacy.clip_norm=10000", *PRIVATE], ""),
    ],
)
def test_what_the_model_does_not_take_is_a_fault_before_any_round(bank: Path, settings: list[str], words: str) -> None:
    found = of_model(bank, *settings, "data.one_record_per_person=true")
    assert bool(lines(found, "fault")) is bool(words)
    assert words in "\n".join(lines(found, "fault"))


def test_a_model_that_gives_up_is_a_fault_in_one_line(bank: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def gives_up(*_: object) -> None:
        raise ValueError(f"sizes 3 and 4\n{CANARY}")

    monkeypatch.setattr("client.trial.try_out", gives_up)
    assert lines(of_model(bank), "fault") == ["ValueError: sizes 3 and 4"]


# -- the command ------------------------------------------------------------------------------------------------------


def call(*words: str) -> Any:
    return CliRunner().invoke(app, ["check", *words], env={"COLUMNS": "200"})


def test_the_page_ends_with_a_verdict_and_the_exit_code_says_it_too(tmp_path: Path) -> None:
    path = str(scenario(tmp_path, TRAIN, TRAIN))
    said = call(path, "--no-model", "--set", "privacy.enabled=true", "--set", "privacy.epsilon=8")
    assert said.exit_code == 2
    assert "keeps the run from starting:\n  privacy   stage" in said.stdout
    assert f"{path}: 1 fault, 1 warning" in said.stdout
    said = call(path, "--no-model")
    assert said.exit_code == 0
    assert "worth a look:\n  records   every test record is a training record" in said.stdout
    assert "ready to run, 1 warning" in said.stdout


def test_as_json_it_is_one_object(tmp_path: Path) -> None:
    said = call(str(scenario(tmp_path, TRAIN, APART)), "--no-model", "--json", "--set", "train.lr=0.01")
    answer = json.loads(said.stdout)
    assert (answer["ok"], {one["level"] for one in answer["findings"]}) == (True, {"fact"})
    answer = json.loads(call("gone.toml", "--json").stdout)
    assert answer["ok"] is False
    assert answer["findings"][0]["about"] == "settings"


def test_the_forecast_stands_in_one_line(tmp_path: Path) -> None:
    path = str(scenario(tmp_path, PERSONS, APART))
    said = call(path, "--no-model", *(word for one in PRIVATE for word in ("--set", one)))
    assert said.exit_code == 0
    line = next(line for line in said.stdout.splitlines() if line.startswith("  privacy"))
    assert all(part in line for part in ("epsilon 8.00", "1e-5", "person", "PLD", "after 2 rounds"))


def test_findings_are_told_once_and_say_what_was_wrong_in_the_words_of_the_error() -> None:
    def fails() -> None:
        raise LlmchainError("x is y", remedy="make it z")

    found = Findings()
    assert found.attempt("model", fails) is None
    assert found.attempt("model", fails) is None
    assert [(one.text, one.remedy) for one in found] == [("x is y", "make it z")]
