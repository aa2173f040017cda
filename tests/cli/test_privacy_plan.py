"""`llmchain-fl privacy plan` with records as units: what somebody with several of them gets."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from llmchain_fl.cli import privacy
from llmchain_fl.core.errors import ConfigError
from llmchain_fl.core.privacy.events import Event
from llmchain_fl.privacy.persons import person_epsilon


def said(*arguments: str) -> str:
    result = CliRunner().invoke(privacy.app, ["plan", "demo-lora", *arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_the_most_records_of_a_person_are_a_reading_of_their_own() -> None:
    told = json.loads(said("--set", "privacy.unit=record", "--records-per-person", "20", "--json"))
    steps = told["steps_per_round"] * told["epsilon"][-1]["counted"]
    event = Event("poisson-gaussian", told["sampling_rate"], told["noise_multiplier"], steps)
    assert list(told["several_records"]) == ["2", "8", "20"]
    assert told["several_records"]["20"] == person_epsilon([event], 20, told["delta"])
    assert "for somebody with 20 records" in said("--set", "privacy.unit=record", "--records-per-person", "20")


@pytest.mark.parametrize("unit", ["person", "site"])
def test_where_a_persons_records_are_one_unit_their_number_is_no_question(unit: str) -> None:
    with pytest.raises(ConfigError, match="are one unit already"):
        said(
            *("--set", f"privacy.unit={unit}", "--set", "sites.held_out=0", "--set", "sites.minimum=4"),
            *("--records-per-person", "20"),
        )
