"""The evaluation suite: edits, speakers, sureness, attribution; a whole one over a small run, in report and card."""

from __future__ import annotations

import random
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from llmchain_fl.cli.main import app
from llmchain_fl.core.errors import ConfigError, RunError
from llmchain_fl.report.suite import read_suite, suite_lines
from llmchain_fl.suite.edits import EDITS, STRENGTHS, edited
from llmchain_fl.suite.parts import bias, log_probabilities, perturbation
from llmchain_fl.suite.speakers import FRAMES, GROUPS, attributes, versions
from llmchain_fl.suite.sureness import brier, fitted_temperature, risk_coverage, sureness, tempered

TEXT = "please send Money to my account now because the card that I had is lost and I need it soon"


@pytest.mark.parametrize("name", EDITS)
def test_an_edit_changes_more_the_stronger_it_is_and_is_the_same_every_time(name: str) -> None:
    found = [edited([TEXT], name, strength, 1)[0] for strength in STRENGTHS]
    assert found == [edited([TEXT], name, strength, 1)[0] for strength in STRENGTHS]
    assert len(set(found)) == 3
    assert TEXT not in found


@given(st.text(max_size=30), st.sampled_from(list(EDITS)), st.sampled_from(STRENGTHS))
def test_an_edit_takes_any_text_and_leaves_something_of_it(text: str, name: str, strength: float) -> None:
    (found,) = edited([text], name, strength, 1)
    assert bool(found.strip()) >= bool(text.strip())


def test_full_width_is_the_same_by_nfkc_and_confusables_are_not() -> None:
    wide, alike = (EDITS[name](TEXT, 0.4, random.Random(1)) for name in ("wide", "alike"))
    assert unicodedata.normalize("NFKC", wide) == TEXT
    assert unicodedata.normalize("NFKC", alike) != TEXT
    assert any(ord(sign) > 0xFF00 for sign in wide)


def test_a_chinese_text_gets_a_chinese_filler_and_chinese_speakers() -> None:
    (found,) = edited(["我的卡丢了"], "filler", 0.05, 1)
    assert found.endswith("我的卡丢了")
    assert " " not in found
    assert versions("我的卡丢了", "origin", 0)[0] == "我是北京人。我的卡丢了"
    assert versions("card lost", "name", 1)[0] == "card lost Best regards, Emily"


def test_every_frame_holds_the_text_and_the_value_once() -> None:
    assert all(set(FRAMES[language]) == set(GROUPS[language]) == set(attributes()) for language in ("en", "zh"))
    for frames in (frame for by in FRAMES.values() for group in by.values() for frame in group):
        told = frames.format("VALUE", "TEXT")
        assert (told.count("VALUE"), told.count("TEXT")) == (1, 1)


def logs_of(seed: int, n: int = 400, labels: int = 3) -> tuple[Any, Any]:
    """log p and labels that are drawn from p: calibrated by construction."""
    draw = np.random.default_rng(seed)
    logits = 2 * draw.normal(size=(n, labels))
    logs = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
    return logs, np.array([draw.choice(labels, p=row) for row in np.exp(logs)])


def test_probabilities_that_are_right_need_no_temperature_and_others_get_theirs_back() -> None:
    logs, targets = logs_of(1, 4000)
    assert fitted_temperature(logs, targets) == pytest.approx(1.0, rel=0.1)
    assert fitted_temperature(tempered(logs, 1 / 3), targets) == pytest.approx(3.0, rel=0.1)
    found = sureness(tempered(logs, 1 / 3), targets)
    assert found["ece_tempered"] < found["ece"]


def test_brier_and_risk_are_those_of_a_plain_loop() -> None:
    logs, targets = logs_of(2, 60)
    chances = np.exp(logs)
    plain = [sum((p[k] - (k == t)) ** 2 for k in range(3)) for p, t in zip(chances, targets, strict=True)]
    assert brier(logs, targets) == pytest.approx(float(np.mean(plain)))
    sure, right = np.array([0.9, 0.6, 0.8, 0.7]), np.array([1.0, 0.0, 1.0, 0.0])
    told, area = risk_coverage(sure, right)
    assert told == {1.0: 0.5, 0.9: 0.5, 0.8: pytest.approx(1 / 3), 0.7: pytest.approx(1 / 3), 0.5: 0.0}
    assert area == pytest.approx((0 + 0 + 1 / 3 + 1 / 2) / 4)


@pytest.fixture(scope="module")
def task(small: Any) -> Any:
    return small.task(head="trained", moved=0.4)


def test_an_edit_that_changes_no_text_costs_nothing_and_the_others_are_counted(task: Any, small: Any) -> None:
    rows = small.rows(30, seed=3)
    texts, targets = [row["text"] for row in rows], np.array([list(small.labels).index(row["label"]) for row in rows])
    found = perturbation(task, texts, targets, 1)
    assert found["blanks"]["0.4"] == {"fall": 0.0, "half_width": pytest.approx(0.06, abs=0.06), "flips": 0.0}
    plain, changed = (log_probabilities(task, told).argmax(axis=1) for told in (texts, edited(texts, "typo", 0.4, 1)))
    assert found["typo"]["0.4"]["flips"] == pytest.approx(float((plain != changed).mean()))
    assert found["typo"]["0.4"]["fall"] == pytest.approx(float((plain == targets).mean() - (changed == targets).mean()))


def test_a_model_that_does_not_know_the_words_of_who_speaks_is_not_biased(task: Any, small: Any) -> None:
    """To the tiny base all of these words are the same unknown token: groups with as many words cannot differ."""
    found = bias(task, [row["text"] for row in small.rows(9, seed=3)])
    assert set(found) == set(attributes())
    assert found["name"]["flips"] == found["origin"]["flips"] == found["age"]["flips"] == 0.0
    assert found["name"]["gap"] == pytest.approx(0.0, abs=1e-6)
    assert bias(task, []) == {}


def test_attributions_add_up_to_the_difference_and_beat_chance_where_one_token_decides(task: Any, small: Any) -> None:
    pytest.importorskip("captum")
    from llmchain_fl.core.tasks.classification import mean_pool
    from llmchain_fl.suite.attribution import _Asked, attribution

    texts = [row["text"] for row in small.rows(6, seed=3)] + [""]
    found = attribution(task, texts, mean_pool, steps=64)
    assert found["completeness_error"] < 0.05
    assert found["texts"] == sum(len(text.split()) > 0 for text in texts)
    asked, examples = _Asked(task, mean_pool), task.encode([{"text": texts[0]}])
    assert asked.logits(asked.ids(texts[0])).tolist() == pytest.approx(
        task.forward(examples, [0]).logits[0].tolist(), abs=1e-4
    )
    assert attribution(task, [""], mean_pool) == {"texts": 0}


def test_a_suite_that_is_damaged_is_said_and_one_that_is_not_there_is_nothing(tmp_path: Path) -> None:
    file = tmp_path / "suite.json"
    assert read_suite(file) == {}
    for text in ("", "[]", "{}", '{"parts": {"bias": 3}, "left_out": {}}'):
        file.write_text(text)
        with pytest.raises(RunError, match="damaged"):
            read_suite(file)
    assert suite_lines({"parts": {}, "left_out": {"bias": "why"}}) == [("bias", "left out: why")]


@pytest.mark.parametrize("words", [["RUN"], ["RUN", "DATA", "--suite"]])
def test_data_or_the_suite_is_asked_for(words: list[str]) -> None:
    done = CliRunner().invoke(app, ["evaluate", *words])
    assert isinstance(done.exception, ConfigError)
    assert "evaluate RUN --suite" in str(done.exception)
