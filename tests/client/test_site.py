from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from client.site import Site, SiteData, SiteLimits, read_site
from llmchain_fl.core.base_digest import base_digest
from llmchain_fl.core.errors import ConfigError, LlmchainError, ModelError, PrivacyError
from llmchain_fl.core.privacy.charges import at_site, training_charges
from llmchain_fl.core.privacy.ledger import FileLedger
from llmchain_fl.core.privacy.null_ledger import NullLedger
from llmchain_fl.core.privacy.release import Release


def site(**limits: Any) -> Site:
    return Site(name="a", data=SiteData(train="x"), limits=SiteLimits(**limits))


def private(small: Any, **changes: Any) -> Any:
    """Work with a plan that fits the loop, for persons."""
    work = small.work()
    return replace(work, plan=small.plan(work, **{"unit": "person", "records_per_unit": 4, **changes}))


def central(small: Any, **changes: Any) -> Any:
    """Work for the unit ``site``, whose plan says nothing about the loop."""
    return private(
        small, **{"unit": "site", "sampling_rate": 1.0, "steps_per_round": 1, "records_per_unit": 1, **changes}
    )


def test_work_within_the_policy_is_taken(small: Any) -> None:
    site().check(private(small))
    site(require_privacy=False).check(small.work())
    allowed = ["minilm", base_digest(small.bert)]
    site(base_models=allowed, max_steps=3, delta=1e-5).check(private(small, delta=1e-6))
    site(units=["record", "person"]).check(private(small, unit="record", records_per_unit=1))
    site(units=["site"]).check(central(small))
    site(require_privacy=False).check(private(small, noise_multiplier=0.0))


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


def test_by_default_only_persons_are_protected_and_only_with_noise() -> None:
    assert SiteLimits() == SiteLimits(require_privacy=True, units=["person"], epsilon=8.0, delta=1e-5, scores="none")


@pytest.mark.parametrize("accepted", [["person"], ["person", "site"], []])
def test_a_unit_that_the_site_does_not_accept_is_refused_with_the_ones_that_it_does(
    small: Any, accepted: list[str]
) -> None:
    with pytest.raises(PrivacyError, match=f"unit is one record, the site accepts {', '.join(accepted) or 'none'}"):
        site(units=accepted).check(private(small, unit="record", records_per_unit=1))


def test_a_weaker_unit_is_refused_even_where_privacy_is_not_asked_for(small: Any) -> None:
    with pytest.raises(PrivacyError, match="unit is one record"):
        site(require_privacy=False).check(private(small, unit="record", records_per_unit=1))


def test_a_plan_without_noise_is_no_privacy(small: Any) -> None:
    for work in (private(small, noise_multiplier=0.0), central(small, noise_multiplier=0.0)):
        with pytest.raises(PrivacyError, match="differential privacy only"):
            site(units=["person", "site"]).check(work)


def test_a_delta_is_refused_above_the_sites_and_taken_at_it(small: Any) -> None:
    site(delta=1e-5).check(private(small, delta=1e-5))
    with pytest.raises(PrivacyError, match="above the site's"):
        site(delta=1e-5).check(private(small, delta=1.0001e-5))


def test_the_steps_of_a_site_are_bounded_with_the_unit_site_too(small: Any) -> None:
    """Its plan counts one release a round, whatever the loop does."""
    with pytest.raises(PrivacyError, match="3 steps in a round, the site allows 2"):
        site(units=["site"], max_steps=2).check(central(small))


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


def test_one_ledger_holds_all_data_sets_of_a_site_and_its_anchor_lies_beside_the_state(
    small: Any, tmp_path: Path
) -> None:
    own = site().model_copy(update={"state": str(tmp_path / "state")})
    named = own.model_copy(update={"data": SiteData(name="notes", train="x")})
    elsewhere = own.model_copy(update={"anchor": str(tmp_path / "other" / "disk")})
    assert (own.data_set, named.data_set) == ("a", "notes")
    assert own.ledger_folder == named.ledger_folder == tmp_path / "state" / "a"
    assert own.anchor_file == named.anchor_file == tmp_path / "state.a.anchor"
    assert elsewhere.anchor_file == tmp_path / "other" / "disk"
    own.ledger(private(small))
    assert (own.ledger_folder / "events.jsonl").is_file()
    assert own.anchor_file.is_file()


def reserved(own: Site, small: Any, people: list[str]) -> list[bool]:
    """A round of this site's data set: who takes part in it."""
    plan = private(small).plan
    charges = at_site(training_charges(plan, "a"), own.data_set, named=True)
    key = f"{own.data_set}/{len(people)}"
    release = Release(key, charges, plan.digest(), "training", "", "a")
    (may,) = own.ledger(private(small)).reserve(release, [(charges[0].group, people)])
    found: list[bool] = may.tolist()
    return found


@pytest.mark.parametrize(("limit", "again"), [(60.0, True), (8.0, False)])
def test_a_person_of_two_data_sets_of_a_site_pays_for_both_and_a_renamed_data_set_is_no_new_budget(
    small: Any, tmp_path: Path, limit: float, again: bool
) -> None:
    """Somebody new has a budget of their own."""
    data = SiteData(name="notes", train="x")
    own = site(epsilon=limit).model_copy(update={"state": str(tmp_path / "state"), "data": data})
    assert reserved(own, small, ["ann"]) == [True]
    once = own.open_ledger("person").spent().epsilon
    renamed = own.model_copy(update={"data": SiteData(name="letters", train="x")})
    assert reserved(renamed, small, ["ann", "bob"]) == [again, True]
    assert (renamed.open_ledger("person").spent().epsilon > 1.2 * once) == again


def test_a_renamed_site_does_not_start_anew(small: Any, tmp_path: Path) -> None:
    own = site().model_copy(update={"state": str(tmp_path / "state")})
    reserved(own, small, ["ann"])
    with pytest.raises(PrivacyError, match="another name"):
        own.model_copy(update={"name": "b"}).ledger(private(small))


def test_a_ledger_of_another_unit_is_not_gone_on_with(small: Any, tmp_path: Path) -> None:
    own = site().model_copy(update={"state": str(tmp_path / "state")})
    own.ledger(private(small))
    with pytest.raises(PrivacyError, match="has unit 'person', not 'record'"):
        own.ledger(private(small, unit="record", records_per_unit=1))


FILE = """
name = "hospital-a"
state = "state"
[data]
train = "records/{stage}.csv"
columns = {text = "note", label = "department", person = "patient_id"}
[limits]
epsilon = 8
units = ["person", "record"]
base_models = ["minilm"]
scores = "noised"
"""


def test_a_site_file_is_read_and_its_paths_start_in_its_folder(tmp_path: Path) -> None:
    (tmp_path / "site.toml").write_text(FILE)
    found = read_site(tmp_path / "site.toml")
    assert found.name == "hospital-a"
    assert found.data.train == str(tmp_path / "records/{stage}.csv")
    assert found.data.held_out == ""
    assert found.state == str(tmp_path / "state")
    assert (found.anchor, found.data.one_record_per_person) == ("", False)
    assert (found.limits.epsilon, found.limits.require_privacy, found.limits.scores) == (8.0, True, "noised")
    assert found.limits.units == ["person", "record"]


def test_an_anchor_of_its_own_starts_in_the_folder_of_the_site_file(tmp_path: Path) -> None:
    (tmp_path / "site.toml").write_text('anchor = "far/anchor"\n' + FILE)
    assert read_site(tmp_path / "site.toml").anchor_file == tmp_path / "far/anchor"


@pytest.mark.parametrize("train", ["/data/x.csv", "hub:org/name", "generated:bank-messages"])
def test_a_source_that_is_no_relative_path_is_kept(tmp_path: Path, train: str) -> None:
    (tmp_path / "site.toml").write_text(FILE.replace("records/{stage}.csv", train))
    assert read_site(tmp_path / "site.toml").data.train == train


def test_all_faults_of_a_site_file_are_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "site.toml").write_text(
        'name = "../x"\n[data]\ntrane = "x"\n[limits]\nepsilon = -1\ndelta = true\n'
        'score = "exact"\nunits = ["persons"]\n'
    )
    with pytest.raises(ConfigError) as caught:
        read_site(tmp_path / "site.toml")
    said = "\n".join(caught.value.faults)
    assert len(caught.value.faults) == 7
    for word in (
        "name",
        "data.train",
        "data.trane",
        "did you mean train?",
        "limits.epsilon",
        "greater than 0",
        "limits.delta",
        "did you mean scores?",
        "limits.units",
        "'person', 'record' or 'site'",
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
