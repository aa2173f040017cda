"""Masked rounds through whole runs: the same adapter as without masks, and shared noise."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Message

from client.app import make_app
from client.site import SiteSecure
from llmchain_fl.adapter.files import read_adapter
from llmchain_fl.config.write import to_toml
from llmchain_fl.core.errors import RunError
from llmchain_fl.core.secure.identity import make_identity, read
from llmchain_fl.progress import Logged
from llmchain_fl.run_dir import RunDir
from llmchain_fl.run_ends import RunPaused
from server.app import run_all
from server.secure_sums import SecureSums
from simulations.grid import InProcessGrid
from simulations.prepare import prepare_sites

pytestmark = pytest.mark.usefixtures("without_pages")


LOCKSTEP = {
    "train": {"method": "lockstep", "steps": 1, "sampling_rate": 0.6, "batch_size": 8.0, "lr": 0.02},
    "sites": {"count": 3, "held_out": 0.0},
    "task": {"head": "trained"},
    "continual": {"guards": []},
    "stage": [{"name": "only", "rounds": 4}],
}


def test_without_noise_the_masked_run_ends_where_the_plain_one_does_up_to_the_grid(tiny: Any, tmp_path: Path) -> None:
    linear = {**LOCKSTEP, "train": {**LOCKSTEP["train"], "optimizer": "sgd", "momentum": 0.0, "lr": 0.05}}
    plain = tiny.played(tmp_path / "plain", **linear)[1]
    masked = tiny.played(tmp_path / "masked", **linear, secure={"sum": True})[1]
    assert plain.keys() == masked.keys()
    assert any(np.abs(value).max() > 1e-3 for name, value in plain.items() if name.endswith("lora_B"))
    for name, value in plain.items():
        np.testing.assert_allclose(masked[name], value, rtol=1e-5, atol=1e-6, err_msg=name)


def test_shared_noise_keeps_every_site_within_the_budget(tiny: Any, tmp_path: Path) -> None:
    privacy = {"enabled": True, "epsilon": 3.0, "noise": "sum", "clip_norm": 1.0}
    run, _ = tiny.played(tmp_path / "run", **LOCKSTEP, secure={"sum": True}, privacy=privacy)
    found = [row["value"] for row in run.rows() if row["metric"] == "epsilon" and row["round"] == 4]
    assert len(found) == 3
    assert all(2.9 <= value <= 3.0 for value in found)


SUMS = {
    **LOCKSTEP,
    "aggregation": {"rule": "head-only"},
    "train": {"method": "lockstep", "steps": 1, "sampling_rate": 1.0, "batch_size": 8.0, "lr": 0.02, "sums": 0.5},
    "continual": {"guards": ["mask"]},
    "stage": [{"name": "ab"[i], "rounds": 2, "labels": labels} for i, labels in enumerate(("0:2", "2:4"))],
}


def test_rows_that_start_from_sums_by_label_are_the_same_for_any_split_masked_or_not(tiny: Any, tmp_path: Path) -> None:
    """The divisor of a site's sum is public, and a direction has no length: nothing of the split is left."""
    first = {**SUMS, "stage": [SUMS["stage"][0]], "train": {**SUMS["train"], "sums": 0.99}}
    one = tiny.played(tmp_path / "one", **{**first, "sites": {"count": 1, "held_out": 0.0}})[1]
    for name, secure in (("three", {}), ("masked", {"secure": {"sum": True}})):
        other = tiny.played(tmp_path / name, **first, **secure)[1]
        np.testing.assert_allclose(other["head.weight"], one["head.weight"], rtol=1e-3, atol=1e-4)
        assert not other["head.bias"].any()


def test_shared_noise_and_sums_by_label_are_booked_as_any_other_round(tiny: Any, tmp_path: Path) -> None:
    privacy = {"enabled": True, "epsilon": 3.0, "noise": "sum", "stages": "disjoint"}
    told = {**SUMS, "data": {"made_up_persons": 1}, "secure": {"sum": True}, "privacy": privacy}
    run, adapter = tiny.played(tmp_path / "sums", **told)
    plain, _ = tiny.played(tmp_path / "plain", **{**told, "train": {**SUMS["train"], "sums": 0.0}})
    booked = [[row["value"] for row in one.rows() if row["metric"] == "epsilon"] for one in (run, plain)]
    assert booked[0] == booked[1]
    assert np.isfinite(adapter["head.weight"]).all()


@pytest.mark.parametrize("rule", ["ffa", "fedit"])
@pytest.mark.part(1)
def test_local_steps_may_be_masked_too(tiny: Any, tmp_path: Path, rule: str) -> None:
    sections = {"aggregation": {"rule": rule}, "continual": {"guards": []}}
    plain = tiny.played(tmp_path / "plain", **sections)[1]
    masked = tiny.played(tmp_path / "masked", **sections, secure={"sum": True})[1]
    for name, value in plain.items():
        np.testing.assert_allclose(masked[name], value, rtol=1e-3, atol=1e-5, err_msg=name)


class Lossy(InProcessGrid):
    """Loses what the rule ``lost`` says of a message: its type, its group (the round) and the site."""

    def __init__(self, app: Any, sites: Any, lost: Callable[[str, str, str], bool]) -> None:
        super().__init__(app, sites)
        self._called, self._lost = dict(enumerate(sites, start=2)), lost
        self.seen: list[tuple[str, str, str]] = []

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterator[Message]:
        kept = []
        for message in messages:
            told = message.metadata
            what = (self._kind(message), told.group_id, self._called[told.dst_node_id])
            self.seen.append(what)
            if not self._lost(*what):
                kept.append(message)
        yield from super().send_and_receive(kept, timeout=timeout)

    def _kind(self, message: Message) -> str:
        if message.metadata.message_type != "query.secure":
            return str(message.metadata.message_type)
        return str(message.content.config_records["config"]["step"])


def lossy(
    tiny: Any, folder: Path, lost: Callable[[str, str, str], bool], **sections: Any
) -> tuple[RunDir, Lossy, list[Any]]:
    """A run over a grid that loses messages; which sites trained in which round."""
    config = tiny.config(**sections)
    run = RunDir.create(folder, to_toml(config))
    by_name = {site.name: site for site in prepare_sites(config, run.sites)}
    trained: list[Any] = []
    app = make_app(
        lambda context: by_name[str(context.node_config["site-name"])],
        lambda site, task, _result: trained.append((task.round, site.name)),
    )
    grid = Lossy(app, by_name, lost)
    run_all(config, run, grid, Logged())
    return run, grid, trained


FOUR = {**LOCKSTEP, "sites": {"count": 4, "held_out": 0.0}}


def test_a_round_without_drop_outs_costs_two_trips_and_keys_ride_along(tiny: Any, tmp_path: Path) -> None:
    _, grid, _ = lossy(tiny, tmp_path / "run", lambda *_: False, **FOUR, secure={"sum": True})
    first = [kind for kind, number, _ in grid.seen if number == "1"]
    later = [[kind for kind, number, _ in grid.seen if number == str(round_)] for round_ in (2, 3, 4)]
    assert set(first) == {"key", "shares", "train", "unmask"}
    assert [sorted(set(kinds)) for kinds in later] == [["train", "unmask"]] * 3


@pytest.mark.parametrize("step", ["key", "shares", "train", "unmask"])
def test_a_site_that_drops_out_at_any_step_leaves_the_exact_mean_of_the_others(
    tiny: Any, tmp_path: Path, step: str
) -> None:
    """Where it is gone before its update counts, the others' mean; where after, the mean of all."""
    linear = {**FOUR, "train": {**LOCKSTEP["train"], "optimizer": "sgd", "momentum": 0.0, "lr": 0.05}}
    linear |= {"stage": [{"name": "only", "rounds": 1}]}
    lost = lambda kind, number, site: (kind, number, site) == (step, "1", "site-03")  # noqa: E731
    run, _, _ = lossy(tiny, tmp_path / "masked", lost, **linear, secure={"sum": True})
    gone = [] if step == "unmask" else ["site-03"]
    plain, _, _ = lossy(
        tiny, tmp_path / "plain", lambda kind, _number, site: kind == "train" and site in gone, **linear
    )
    ours, theirs = read_adapter(run.adapter)[1], read_adapter(plain.adapter)[1]
    for name, value in theirs.items():
        np.testing.assert_allclose(ours[name], value, rtol=1e-4, atol=1e-6, err_msg=name)


@pytest.mark.thorough
def test_a_site_that_came_back_is_in_the_sum_of_the_round_after_next(tiny: Any, tmp_path: Path) -> None:
    lost = lambda kind, number, site: (kind, number, site) == ("train", "1", "site-03")  # noqa: E731
    _, _, trained = lossy(tiny, tmp_path / "run", lost, **FOUR, secure={"sum": True})
    rounds = {number: {site for told, site in trained if told == number} for number in (1, 2, 3, 4)}
    assert "site-03" not in rounds[1]
    assert len(rounds[2]) >= 3
    assert "site-03" in rounds[3] | rounds[4]


def test_a_sum_that_is_not_opened_voids_its_round_and_the_next_one_goes_on_with_the_keys_it_has(
    tiny: Any, tmp_path: Path
) -> None:
    lost = lambda kind, number, site: (kind, number) == ("unmask", "2") and site in ("site-02", "site-03")  # noqa: E731
    run, grid, trained = lossy(tiny, tmp_path / "run", lost, **FOUR, secure={"sum": True})
    first, third = ({(kind, site) for kind, at, site in grid.seen if at == str(number)} for number in (1, 3))
    assert {("key", "site-00"), ("shares", "site-00")} <= first
    assert {kind for kind, _ in third} == {"shares", "train", "unmask"}
    assert {site for kind, site in third if kind == "shares"} == {"site-02", "site-03"}  # whose answers were lost
    assert {site for number, site in trained if number == 3} == {f"site-0{i}" for i in range(4)}
    losses = {row["round"]: row["value"] for row in run.rows() if row["metric"] == "loss" and row["scope"] == "global"}
    assert losses[1] == losses[2] != losses[3]


@pytest.mark.thorough
def test_keys_of_a_stranger_for_the_next_round_spoil_no_sum_of_this_one(tiny: Any, tmp_path: Path) -> None:
    """One site gives keys under an identity that nobody lists: it is left out of the next sum, not all of this one."""
    seen: list[Any] = []

    def lost(kind: str, number: str, site: str) -> bool:
        seen.append((kind, number, site))
        return False

    config = tiny.config(**FOUR, secure={"sum": True})
    run = RunDir.create(tmp_path / "run", to_toml(config))
    by_name = {site.name: site for site in prepare_sites(config, run.sites)}
    app = make_app(lambda context: by_name[str(context.node_config["site-name"])])
    real = SecureSums.take

    def swapped(self: SecureSums, number: int, site: str, arrays: Any) -> int:
        if (number, site) == (1, "site-03"):
            stranger = make_identity(tmp_path / "stranger.key")
            told = read(arrays["key"].tobytes(), "key").body | {"identity": stranger.public}
            arrays = {**arrays, "key": np.frombuffer(stranger.signed("key", told), dtype=np.uint8)}
        return real(self, number, site, arrays)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SecureSums, "take", swapped)
        run_all(config, run, Lossy(app, by_name, lost), Logged())
    assert {number for kind, number, _ in seen if kind == "train"} == {"1", "2", "3", "4"}
    assert {number for kind, number, _ in seen if kind == "key"} == {"1", "2"}  # nobody followed it: begun anew


def test_a_server_killed_between_the_trips_goes_on_at_the_second_and_nobody_trains_or_pays_again(
    tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    privacy = {"enabled": True, "epsilon": 8.0, "noise": "sum"}
    config = tiny.config(**LOCKSTEP, secure={"sum": True}, privacy=privacy)
    run = RunDir.create(tmp_path / "run", to_toml(config))
    by_name = {site.name: site for site in prepare_sites(config, run.sites)}
    trained: list[int] = []
    app = make_app(
        lambda context: by_name[str(context.node_config["site-name"])],
        lambda _site, task, _result: trained.append(task.round),
    )
    real = SecureSums.open

    def killed(self: SecureSums, grid: Any, number: int, nodes: Any) -> Any:
        if number == 2:
            raise KeyboardInterrupt
        return real(self, grid, number, nodes)

    with monkeypatch.context() as patch:
        patch.setattr(SecureSums, "open", killed)
        with pytest.raises(KeyboardInterrupt):
            run_all(config, run, InProcessGrid(app, by_name), Logged())
    assert trained.count(2) == 3
    run_all(config, run, InProcessGrid(app, by_name), Logged())
    assert [trained.count(number) for number in (1, 2, 3, 4)] == [3, 3, 3, 3]
    assert all(site.open_ledger("person").spent().events[0].steps == 4 for site in by_name.values())
    found = {row["value"] for row in run.rows() if row["metric"] == "epsilon" and row["round"] == 4}
    assert max(found) <= 8.0


@pytest.mark.thorough
def test_a_site_that_counts_its_own_share_alone_books_more(tiny: Any, tmp_path: Path) -> None:
    """Against the server together with all others the noise of one share is what counts, and its limit decides."""
    privacy = {"enabled": True, "epsilon": 2.0, "noise": "sum"}
    config = tiny.config(**LOCKSTEP, secure={"sum": True, "counted_peers": 0}, privacy=privacy)
    run = RunDir.create(tmp_path / "run", to_toml(config))
    sites = {
        site.name: site.model_copy(update={"limits": site.limits.model_copy(update={"epsilon": 100.0})})
        for site in prepare_sites(config, run.sites)
    }
    app = make_app(lambda context: sites[str(context.node_config["site-name"])])
    run_all(config, run, InProcessGrid(app, sites), Logged())
    told = {row["value"] for row in run.rows() if row["metric"] == "epsilon" and row["round"] == 4}
    assert max(told) <= 2.0
    spent = [site.open_ledger("person").spent() for site in sites.values()]
    assert all(one.epsilon > 3.0 for one in spent)
    alone = {event.noise_multiplier for one in spent for event in one.events}
    (z,) = {run.read_privacy()["noise_multiplier"]}
    assert alone == {z * (1 / 3) ** 0.5}


def test_a_budget_that_the_own_share_does_not_keep_is_refused_before_anything_is_spent(
    tiny: Any, tmp_path: Path
) -> None:
    privacy = {"enabled": True, "epsilon": 8.0, "noise": "sum"}
    with pytest.raises(RunError, match="used up its budget"):
        tiny.played(tmp_path / "run", **LOCKSTEP, secure={"sum": True, "counted_peers": 0}, privacy=privacy)


def test_a_site_that_wants_masked_rounds_only_trains_in_no_other(tiny: Any, tmp_path: Path) -> None:
    config = tiny.config(**LOCKSTEP)
    run = RunDir.create(tmp_path / "run", to_toml(config))
    sites = {
        site.name: site.model_copy(update={"secure": SiteSecure(only=True)})
        for site in prepare_sites(config, run.sites)
    }
    app = make_app(lambda context: sites[str(context.node_config["site-name"])])
    with pytest.raises(RunPaused, match="privacy"):
        run_all(config, run, InProcessGrid(app, sites), Logged())


@pytest.mark.thorough
def test_whole_sites_are_protected_without_trusting_the_server(tiny: Any, tmp_path: Path) -> None:
    """Unit site with noise on the sum: local steps, clipped whole; the server sees the noised sum alone."""
    privacy = {"enabled": True, "unit": "site", "epsilon": 8.0, "noise": "sum", "clip_norm": 0.5}
    run, _ = tiny.played(tmp_path / "run", sites={"count": 3, "held_out": 0.0}, privacy=privacy, secure={"sum": True})
    found = [row["value"] for row in run.rows() if row["metric"] == "epsilon" and row["round"] == 2]
    assert len(found) == 3
    assert 7.0 < max(found) <= 8.0
    assert not [row for row in run.rows() if row["metric"] == "update_norm"]
