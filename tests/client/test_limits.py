"""What the data holder allows: each cap at its value and one above it, threads, memory, and who may read the state."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pydantic
import pytest
import torch

import client.gradients
import client.plain_gradient
from client.check import check_train
from client.scores import check_score
from client.site import Site, SiteCompute, SiteData, SiteLimits
from client.trial import check_memory
from llmchain_fl.core.base_digest import base_digest
from llmchain_fl.core.errors import LlmchainError, ModelError, WireError
from llmchain_fl.core.messages import TrainTask
from llmchain_fl.core.score_task import ScoreTask
from llmchain_fl.core.work import GuardSpec, WorkSpec, open_work
from llmchain_fl.replies import Refusal, Update, read_reply


def site(**limits: Any) -> Site:
    return Site(name="a", data=SiteData(train="x"), limits=SiteLimits(**{"require_privacy": False, **limits}))


def labelled(work: WorkSpec, count: int) -> WorkSpec:
    return replace(work, task=replace(work.task, labels=tuple((f"l{i}", "card") for i in range(count))))


def public(work: WorkSpec, count: int) -> WorkSpec:
    """Two guards that pass ``count`` public records together."""
    agem = GuardSpec("agem", (("batch", float(count - 4)), ("strength", 1.0)))
    replay = GuardSpec("replay", (("batch", 4.0), ("data", "public"), ("weight", 1.0)))
    return replace(work, guards=(agem, replay))


def among(work: WorkSpec, count: int) -> WorkSpec:
    return replace(work, task=replace(work.task, candidate_labels=tuple((f"s{i}", (0,)) for i in range(count))))


WORK: dict[str, Callable[[WorkSpec, int], WorkSpec]] = {
    "max_steps": lambda work, count: replace(work, train=replace(work.train, steps=count)),
    "max_rank": lambda work, count: replace(work, adapter=replace(work.adapter, rank=count)),
    "max_tokens": lambda work, count: replace(work, task=replace(work.task, max_tokens=count)),
    "max_labels": labelled,
    "max_public": public,
    "max_stages": among,
}


@pytest.mark.parametrize("cap", WORK)
@pytest.mark.parametrize("most", [5, 40])
def test_work_is_taken_at_each_cap_and_refused_one_above_it(small: Any, cap: str, most: int) -> None:
    own, change = site(**{cap: most}), WORK[cap]
    for count in (most - 1, most):
        own.check(change(small.work(), count))
    with pytest.raises(LlmchainError, match=f"{most + 1} .*the site allows {most}"):
        own.check(change(small.work(), most + 1))
    site().check(change(small.work(), most + 1))  # by the caps that are usual it is no question


@pytest.mark.parametrize("most", [1, 7])
def test_stages_of_which_labels_are_told_are_counted_too(small: Any, most: int) -> None:
    for count in (most, most + 1):
        told = tuple((f"s{i}", (0, 1)) for i in range(count))
        work = replace(small.work(), task=replace(small.work().task, stage_labels=told))
        if count == most:
            site(max_stages=most).check(work)
        else:
            with pytest.raises(LlmchainError, match=f"{count} stages, the site allows {most}"):
                site(max_stages=most).check(work)


def task(**changes: Any) -> TrainTask:
    told = {"run": "r", "round": 1, "stage": 0, "stage_name": "s", "lr": 0.1, "work": "", "arrays": {}}
    return TrainTask(**{**told, **changes})


@pytest.mark.parametrize("most", [1, 7])
def test_stages_of_a_task_are_counted(most: int) -> None:
    own = site(max_stages=most)
    for count in (most, most + 1):
        stages = tuple(f"e{i}" for i in range(count))
        asks = [
            lambda stages=stages: check_train(own, task(earlier=stages)),
            lambda stages=stages: check_score(own, ScoreTask(1, stages, "", {}, run="r")),
        ]
        for ask in asks:
            if count == most:
                ask()
            else:
                with pytest.raises(WireError, match=f"{count} stages, the site allows {most}"):
                    ask()


@pytest.mark.parametrize("where", ["adapter", "guards", "both", "scores"])
def test_arrays_of_a_task_are_weighed_together(where: str) -> None:
    own = site(max_message_mb=1)
    for count, good in ((2**18, True), (2**18 + 1, False)):
        first = count // 2 if where == "both" else (0 if where == "guards" else count)
        arrays = {"a": np.zeros(first, np.float32)}, {"b": np.zeros(count - first, np.float32)}

        def ask(arrays: Any = arrays) -> None:
            if where == "scores":
                check_score(own, ScoreTask(1, ("s",), "", arrays[0], run="r"))
            else:
                check_train(own, task(arrays=arrays[0], guard_arrays=arrays[1]))

        if good:
            ask()
        else:
            with pytest.raises(WireError, match="MB of arrays, the site allows 1"):
                ask()


# -- memory and threads -----------------------------------------------------------------------------------------------


def opened(small: Any, **settings: Any) -> tuple[WorkSpec, Any]:
    work = small.work(**settings)
    return work, open_work(work.resident, work.task)[0]


@pytest.mark.parametrize("most", [-1, 0, 1])
def test_trained_numbers_are_counted_once_the_base_is_known(small: Any, most: int) -> None:
    work, resident = opened(small)
    allowed = resident.trained_size + most
    if most >= 0:
        check_memory(work, resident, 4, 10**6, allowed)
        return
    with pytest.raises(ModelError, match=f"{resident.trained_size} trained numbers, the site allows {allowed}"):
        check_memory(work, resident, 4, 10**6, allowed)


@pytest.mark.parametrize(("rows", "rank", "tokens"), [(1, 2, 8), (6, 3, 16), (1024, 8, 48)])
def test_the_estimate_of_memory_is_the_formula_by_hand(small: Any, rows: int, rank: int, tokens: int) -> None:
    work, resident = opened(small, rank=rank, max_tokens=tokens)
    base = sum(v.numel() * 4 for v in resident.base.module.parameters())
    need = 570 + (base + 121 * 3 * 32 * rows * tokens + 4 * resident.trained_size * (rows + 20)) / 2**20
    check_memory(work, resident, rows, int(need) + 1, 10**9)
    with pytest.raises(ModelError, match=f"needs some {need:.0f} MB by estimate, the site has {int(need) - 1}"):
        check_memory(work, resident, rows, int(need) - 1, 10**9)


def test_a_round_that_needs_too_much_is_refused_before_any_pass_and_for_free(
    ward: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    ward.limits = SiteLimits(units=["record"], epsilon=60.0, memory_mb=571)
    for place in ("client.opening.shape_for", "client.trial.try_out", "client.app.site_records"):
        monkeypatch.setattr(place, lambda *_: pytest.fail("it went on"))
    assert read_reply(ward.train(ward.work())) == Refusal("model")
    assert ward.booked() == []


CPUS = os.cpu_count() or 1


@pytest.mark.parametrize(
    ("own", "wish", "found"),
    [(0, 1, 1), (1, 256, 1), (256, 1, CPUS), (0, 256, CPUS), (1, 0, 1)],
)
@pytest.mark.part(1)
def test_the_site_chooses_its_threads_and_never_more_than_the_machine_has(
    ward: Any, own: int, wish: int, found: int
) -> None:
    before = torch.get_num_threads()
    ward.compute = SiteCompute(threads=own)
    try:
        assert isinstance(read_reply(ward.train(replace(ward.work(), threads=wish))), Update)
        assert torch.get_num_threads() == found
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(("own", "wish", "found"), [(0, 4, 4), (2, 4, 2), (9, 4, 4), (0, 10**12, 1024), (0, -7, 1)])
def test_the_site_chooses_how_many_records_go_through_at_once_without_privacy(
    ward: Any, monkeypatch: pytest.MonkeyPatch, own: int, wish: int, found: int
) -> None:
    seen: list[int] = []
    plain = client.plain_gradient.PlainGradient
    monkeypatch.setattr(
        "client.plain_gradient.PlainGradient", lambda r, e, micro: seen.append(micro) or plain(r, e, micro)
    )
    ward.limits = SiteLimits(require_privacy=False)
    ward.compute = SiteCompute(micro_batch=own)
    assert isinstance(read_reply(ward.train(ward.work(private=False, train={"micro_batch": wish}))), Update)
    assert seen == [found]


@pytest.mark.parametrize("rows", [1, 3])
def test_the_site_chooses_how_many_rows_a_private_pass_has(
    ward: Any, monkeypatch: pytest.MonkeyPatch, rows: int
) -> None:
    seen: list[int] = []
    plain = client.gradients.PerSample
    monkeypatch.setattr("client.gradients.PerSample", lambda told, most: seen.append(most) or plain(told, most))
    ward.compute = SiteCompute(rows=rows)
    assert isinstance(read_reply(ward.train(ward.work())), Update)
    assert set(seen) == {rows}


# -- what may be loaded, and who may read ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["bert-base-uncased", "/models/x", "sha256:", "sha256:" + "g" * 64, "SHA256:" + "0" * 64, ""]
)
def test_a_base_is_named_by_a_known_name_or_by_its_content(name: str) -> None:
    with pytest.raises(pydantic.ValidationError, match="known name"):
        SiteLimits(base_models=[name])
    SiteLimits(base_models=["minilm", "sha256:" + "0" * 64])


def test_a_folder_of_the_name_of_an_allowed_base_is_another_base(small: Any, tmp_path: Any, monkeypatch: Any) -> None:
    """A name on the site's disk can be given to anything; only what the package brings goes by its name."""
    monkeypatch.chdir(tmp_path)
    own = site(base_models=["minilm", base_digest(small.bert)])
    own.check(small.work())
    for path in (str(small.llama), "./minilm", str(tmp_path)):
        with pytest.raises(ModelError):
            own.check(replace(small.work(), base=replace(small.work().base, path=path)))


def test_a_byte_more_is_another_base(small: Any, tmp_path: Any) -> None:
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(small.bert, copy)
    own = site(base_models=[base_digest(small.bert)])
    work = replace(small.work(), base=replace(small.work().base, path=str(copy)))
    own.check(work)
    (copy / "config.json").write_text((copy / "config.json").read_text() + " ")
    with pytest.raises(ModelError, match="does not allow"):
        own.check(work)


def test_only_the_owner_may_read_what_a_site_keeps(ward: Any) -> None:
    work = ward.work(trained=("lora_A", "lora_B"))
    assert isinstance(read_reply(ward.train(work, keeps=("lora_A",))), Update)
    state = ward.folder / "state"
    kept = [state, *state.rglob("*"), ward.site.anchor_file]
    assert len(kept) > 5
    assert {path.stat().st_mode & 0o077 for path in kept} == {0}
