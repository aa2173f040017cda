"""Medical questions over the tiny model: a leaflet is shown with each answer, and nothing is answered where none is."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from typer.testing import CliRunner

pytest.importorskip("bm25s", reason="the extra retrieval is not installed")

from llmchain_fl.core.errors import ConfigError
from llmchain_fl.feedback.teller import Teller
from llmchain_fl.loop.answers import Answers, Asked, Outcome, Question, outcome_of, play, read_answers
from llmchain_fl.loop.desk import bare_base, listening
from llmchain_fl.loop.settings import shipped
from llmchain_fl.serve.settings import read_settings

TEXTS = {"a": "card lost pay fee", "b": "loan rate money", "c": "pin swap limit"}


def tree(small: Any, folder: Path, **more: Any) -> dict[str, Any]:
    """A file over the tiny model. Half of the unanswerable questions have no word of any passage."""
    rows, none = [], []
    for times in range(1, 11):
        none += [{"question": "why " * times + "stolen"}, {"question": "balance " * times}]
        for text in TEXTS.values():
            for word in text.split():
                where = {"answers": [word], "answer_start": [text.index(word)]}
                rows.append({"question": "why " * times + word, "context": text, **where})
    for name, some in (("questions.jsonl", rows), ("none.jsonl", none)):
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in some), encoding="utf-8")
    passages = "".join(json.dumps({"id": name, "text": text}) + "\n" for name, text in TEXTS.items())
    (folder / "passages.jsonl").write_text(passages, encoding="utf-8")
    statement = {"data": "made-up", "intended_use": "tests", "refused_use": "all else", "licence": "Apache-2.0"}
    data = str(folder / "questions.jsonl")
    return {
        "seed": 2,
        "model": {"path": str(small.bert), "threads": 1, "max_tokens": 16},
        "adapter": {"rank": 2},
        "task": {"kind": "span-qa", "windows": 1},
        "data": {"train": data, "test": data, "baseline": 0},
        "sites": {"count": 2},
        "train": {"steps": 2, "sampling_rate": 0.3, "batch_size": 6, "lr": 0.01},
        "aggregation": {"rule": "ffa"},
        "stage": [{"name": "leaflets", "rounds": 1}],
        "answers": {
            "name": "leaflets",
            "passages": str(folder / "passages.jsonl"),
            "questions": data,
            "unanswerable": str(folder / "none.jsonl"),
            "count": 20,
            "accuracy": 0.0,
            "statement": statement,
            **more,
        },
    }


@dataclass
class Played:
    spec: Answers
    out: Path
    outcome: Outcome
    token: str
    lines: list[str]


@pytest.fixture(scope="module")
def played(small: Any, tmp_path_factory: pytest.TempPathFactory) -> Played:
    folder = tmp_path_factory.mktemp("ward")
    (folder / "ward.toml").write_text(tomli_w.dumps(tree(small, folder)), encoding="utf-8")
    spec, lines = read_answers(str(folder / "ward.toml")), list[str]()
    outcome, token = play(spec, folder / "out", lines.append)
    return Played(spec, folder / "out", outcome, token, lines)


def test_what_is_left_is_a_server_that_answers_with_the_passage_or_not_at_all(played: Played) -> None:
    file = played.out / "desk" / "serve.toml"
    settings = read_settings(file)
    assert played.token not in file.read_text(encoding="utf-8")
    assert settings.adapter[0].abstain_below == pytest.approx(played.outcome.threshold, abs=1e-4)
    with listening(settings.model_copy(update={"port": 0}), bare_base()) as address:
        ask = Teller(address, played.token)
        for name, text in TEXTS.items():
            answer = ask.post("/v1/answer", {"question": f"why {text}"})
            assert answer["passage"] == {"id": name, "text": text}
            if not answer["abstain"]:
                assert answer["answer"] == text[answer["start"] : answer["end"]] != ""
        nothing = ask.post("/v1/answer", {"question": "stolen"})
        assert (nothing["answer"], nothing["abstain"], nothing["passage"]) == (None, True, None)


def test_the_outcome_counts_questions_that_no_threshold_was_taken_from(played: Played) -> None:
    outcome = played.outcome
    assert (outcome.answerable, outcome.unanswerable) == (10, 10)
    assert outcome.abstained_unanswerable == 10
    assert outcome.answered == 20 - outcome.abstained_unanswerable - outcome.abstained_answerable
    assert json.loads((played.out / "outcome.json").read_text(encoding="utf-8"))["right"] == outcome.right
    assert any("no answer" in line and "passage none" in line for line in played.lines)


def test_a_question_from_which_the_threshold_was_taken_is_not_asked_again(
    small: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from llmchain_fl.loop import answers

    asked: list[list[str]] = []

    def ask(file: Path, token: str, questions: Any, *more: Any) -> list[Asked]:
        asked.append([one.text for one in questions])
        return [Asked(one, "".join(one.right) or None, 0.5, "a") for one in questions]

    spec = tree(small, tmp_path)
    file = tmp_path / "questions.jsonl"
    rows = file.read_text(encoding="utf-8").splitlines(keepends=True)
    file.write_text("".join([*(row for row in rows[:5] for _ in range(2)), *rows[5:15]]), encoding="utf-8")
    (tmp_path / "ward.toml").write_text(tomli_w.dumps(spec), encoding="utf-8")
    monkeypatch.setattr(answers, "_ask", ask)
    outcome, _ = play(read_answers(str(tmp_path / "ward.toml")), tmp_path / "out")
    public, others = asked
    assert not set(public) & set(others)
    assert (outcome.answerable, outcome.unanswerable) == (5, 10)


def test_a_wrong_answer_and_an_answer_to_what_has_none_are_not_right() -> None:
    known, unknown = Question("where", ("in the fridge",)), Question("what", ())
    asked = [
        Asked(known, "In the fridge.", 0.9, "a"),
        Asked(known, "fridge", 0.9, "a"),
        Asked(known, None, 0.1, "a"),
        Asked(unknown, "fridge", 0.9, "a"),
        Asked(unknown, None, 0.1, ""),
    ]
    assert outcome_of(0.5, asked) == Outcome(0.5, 3, 2, 3, 1, 1, 1)


def test_a_file_of_another_task_or_with_an_unknown_key_is_refused(small: Any, tmp_path: Path) -> None:
    file = tmp_path / "ward.toml"
    spec = tree(small, tmp_path, acuracy=0.5)
    file.write_text(tomli_w.dumps(spec), encoding="utf-8")
    with pytest.raises(ConfigError, match="accuracy"):
        read_answers(str(file))
    spec = tree(small, tmp_path)
    spec["task"] = {"kind": "plain-text"}
    file.write_text(tomli_w.dumps(spec), encoding="utf-8")
    with pytest.raises(ConfigError, match="pieces of passages"):
        read_answers(str(file))


def test_an_accuracy_that_no_threshold_reaches_leaves_the_server_and_says_so(small: Any, tmp_path: Path) -> None:
    from llmchain_fl.cli.main import app

    (tmp_path / "ward.toml").write_text(tomli_w.dumps(tree(small, tmp_path, accuracy=0.99)), encoding="utf-8")
    done = CliRunner().invoke(app, ["loop", str(tmp_path / "ward.toml"), "--out", str(tmp_path / "out")])
    assert isinstance(done.exception, ConfigError)
    assert "99%" in str(done.exception)
    assert (tmp_path / "out" / "desk" / "serve.toml").exists()


def test_the_shipped_file_is_read_whole() -> None:
    spec = read_answers("medical-questions")
    assert "medical-questions" in shipped()
    assert spec.config.task.kind == "span-qa-or-none"
    assert spec.answers.accuracy >= 0.5
