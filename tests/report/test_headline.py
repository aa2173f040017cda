"""Heading and badges of a run follow from its settings; a title that denies them is not shown."""

from __future__ import annotations

from typing import Any

import pytest

from llmchain_fl.report.headline import fits, headline, title_of

PRIVATE = {"enabled": True, "epsilon": 8.0, "delta": 1e-5, "unit": "person"}


def settings(title: str = "", private: bool = True, guards: tuple[str, ...] = ("distill",)) -> dict[str, Any]:
    return {
        "title": title,
        "seed": 7,
        "model": {"path": "models/minilm/"},
        "task": {"kind": "causal-lm"},
        "sites": {"count": 6},
        "aggregation": {"rule": "ffa"},
        "privacy": PRIVATE if private else {"enabled": False, "epsilon": 8.0},
        "continual": {"guards": list(guards)},
        "stage": [{"name": name} for name in "abc"],
    }


def test_the_heading_and_the_badges_are_those_of_the_settings() -> None:
    head = headline(settings("six branches"))
    assert head.title == "Causal lm, 6 sites, 3 stages"
    assert head.words == "six branches"
    assert head.badges == (
        "differential privacy: target epsilon 8, delta 1e-5, per person", "rule ffa", "guards distill",
        "base minilm", "seed 7",
    )  # fmt: skip


def test_a_badge_says_that_noise_is_shared() -> None:
    told = settings("six branches")
    told["privacy"] = {**told["privacy"], "noise": "sum"}
    assert headline(told).badges[0] == (
        "differential privacy: target epsilon 8, delta 1e-5, per person, noise on the sum"
    )


def test_a_run_without_privacy_is_never_headed_differential_privacy() -> None:
    head = headline(settings("six bank branches, three stages, differential privacy, guards", private=False))
    assert "privacy" not in head.title + head.words
    assert head.badges[0] == "no differential privacy"
    assert "no guards" in headline(settings(guards=())).badges


@pytest.mark.parametrize(
    ("title", "private", "guards", "fit"),
    [
        ("six branches, differential privacy", True, True, True),
        ("six branches, differential privacy", False, True, False),
        ("epsilon 8 for everybody", True, True, True),
        ("epsilon 3 for everybody", True, True, False),
        ("a run without differential privacy", True, True, False),
        ("a run without differential privacy", False, True, True),
        ("no privacy, 3 stages", False, True, True),
        ("guards against forgetting", True, False, False),
        ("without guards", True, False, True),
        ("six bank branches in three stages", True, True, True),
        ("ten bank branches", True, True, False),
        ("2 stages", True, True, False),
        ("11 sites", True, True, False),
        ("77 real bank intents", True, True, True),
        ("", True, True, True),
    ],
)
def test_a_title_is_shown_where_it_says_nothing_that_the_settings_deny(
    title: str, private: bool, guards: bool, fit: bool
) -> None:
    assert fits(title, settings(private=private, guards=("ema",) if guards else ())) == fit


def test_the_line_of_the_terminal_follows_the_settings_too() -> None:
    said = "six branches, differential privacy"
    assert title_of(settings(said)) == said
    assert title_of(settings(said, private=False)).startswith("Causal lm, 6 sites, 3 stages, no differential privacy")


def test_settings_that_are_not_there_are_not_said() -> None:
    assert headline({}).title == "Run"
    assert headline({"privacy": 3, "stage": [], "title": 4}).badges == ("no differential privacy", "no guards")
