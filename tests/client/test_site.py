from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from client.site import Site, SiteData, SiteLimits, read_site
from llmchain_fl.errors import ConfigError, LlmchainError, ModelError, PrivacyError
from llmchain_fl.privacy.ledger import FileLedger, NullLedger


def site(**limits: Any) -> Site:
    return Site(name="a", data=SiteData(train="x"), limits=SiteLimits(**limits))


def private(small: Any, **changes: Any) -> Any:
    work = small.work()
    return replace(work, plan=small.plan(work, **changes))


def test_work_within_the_policy_is_taken(small: Any) -> None:
    site().check(private(small))
    site(require_privacy=False).check(small.work())
    site(base_models=["other", str(small.bert)], max_steps=3, delta=1e-5).check(private(small, delta=1e-6))


@pytest.mark.parametrize(
    ("limits", "private_work", "error", "word"),
    [
        ({}, False, PrivacyError, "differential privacy only"),
        ({"delta": 1e-6}, True, PrivacyError, "1e-05 is above the site's 1e-06"),
        ({"max_steps": 2}, True, PrivacyError, "3 steps in a round, the site allows 2"),
        ({"base_models": ["minilm"]}, True, ModelError, "base model"),
    ],
)
def test_work_outside_the_policy_is_refused(
    small: Any, limits: dict[str, Any], private_work: bool, error: type[LlmchainError], word: str
) -> None:
    with pytest.raises(error, match=word):
        site(**limits).check(private(small) if private_work else small.work())


@pytest.mark.parametrize("changes", [{"sampling_rate": 0.1}, {"steps_per_round": 1}, {"divisor": 8.0}])
def test_a_plan_that_does_not_describe_the_loop_is_refused(small: Any, changes: dict[str, Any]) -> None:
    """Otherwise the ledger would book less than what is released."""
    with pytest.raises(PrivacyError, match="not the one that the privacy plan accounts for"):
        site().check(private(small, **changes))


def test_only_work_with_a_plan_has_a_ledger(small: Any, tmp_path: Path) -> None:
    own = site().model_copy(update={"state": str(tmp_path / "state")})
    assert isinstance(own.ledger(private(small)), FileLedger)
    assert isinstance(own.ledger(small.work()), NullLedger)


def test_the_ledger_counts_at_the_sites_delta_and_limit(small: Any, tmp_path: Path) -> None:
    own = site(epsilon=3.0, delta=1e-4).model_copy(update={"state": str(tmp_path)})
    assert own.ledger(private(small, delta=1e-6)).spent().delta == 1e-4


FILE = """
name = "hospital-a"
state = "state"
[data]
train = "records/{stage}.csv"
columns = {text = "note", label = "department"}
[limits]
epsilon = 8
base_models = ["minilm"]
"""


def test_a_site_file_is_read_and_its_paths_start_in_its_folder(tmp_path: Path) -> None:
    (tmp_path / "site.toml").write_text(FILE)
    found = read_site(tmp_path / "site.toml")
    assert found.name == "hospital-a"
    assert found.data.train == str(tmp_path / "records/{stage}.csv")
    assert found.data.held_out == ""
    assert found.state == str(tmp_path / "state")
    assert (found.limits.epsilon, found.limits.require_privacy, found.limits.share_scores) == (8.0, True, False)


@pytest.mark.parametrize("train", ["/data/x.csv", "hub:org/name", "generated:bank-messages"])
def test_a_source_that_is_no_relative_path_is_kept(tmp_path: Path, train: str) -> None:
    (tmp_path / "site.toml").write_text(FILE.replace("records/{stage}.csv", train))
    assert read_site(tmp_path / "site.toml").data.train == train


def test_all_faults_of_a_site_file_are_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "site.toml").write_text(
        'name = "../x"\n[data]\ntrane = "x"\n[limits]\nepsilon = -1\ndelta = true\nshare_score = false\n'
    )
    with pytest.raises(ConfigError) as caught:
        read_site(tmp_path / "site.toml")
    said = "\n".join(caught.value.faults)
    assert len(caught.value.faults) == 6
    for word in (
        "name",
        "data.train",
        "data.trane",
        "did you mean train?",
        "limits.epsilon",
        "greater than 0",
        "limits.delta",
        "did you mean share_scores?",
    ):
        assert word in said


@pytest.mark.parametrize("text", [None, "name = ", "\udcff", "name = 5"])
def test_a_site_file_that_cannot_be_read_is_a_configuration_error(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "site.toml").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(ConfigError):
        read_site(tmp_path / "site.toml")


def test_a_folder_for_a_site_file_is_a_configuration_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        read_site(tmp_path)
