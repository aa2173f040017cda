"""What comes through the one door is what was signed, and serves what the run served."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llmchain_fl.hub import HubError, Trust, layout, verified
from llmchain_fl.hub.trust import Seen


def test_an_adapter_that_was_verified_answers_as_the_one_that_was_written(
    small: Any, sealed: Path, trust: Trust
) -> None:
    from llmchain_fl.core.work import open_work

    adapter = verified(sealed, trust)
    task = small.task(head="trained", moved=0.3)
    rows = small.rows(20)
    wanted = task.predict([row["text"] for row in rows])
    work = adapter.work_on(str(small.bert))
    resident, again = open_work(work.resident, work.task)
    resident.reset()
    resident.load(adapter.to_load())
    assert again.predict([row["text"] for row in rows]) == wanted
    assert (adapter.label, adapter.publisher, adapter.parent) == ("bank@1", "north", "")
    assert not any(value.flags.writeable for value in adapter.arrays.values())


def test_the_same_content_signed_by_the_same_key_has_the_same_address(sealed: Path, trust: Trust) -> None:
    adapter = verified(sealed, trust)
    assert adapter.address == verified(sealed, trust).address
    assert len(adapter.address) == 64


def test_another_base_model_is_refused(small: Any, sealed: Path, trust: Trust) -> None:
    adapter = verified(sealed, trust)
    for base in (str(small.shape("gpt2")), "org/of-a-hub", str(sealed)):
        with pytest.raises(HubError, match=r"^base:"):
            adapter.work_on(base)


def test_what_its_publisher_took_back_is_refused_also_where_it_lies_on_the_disk(
    signer: Any, sealed: Path, trust: Trust
) -> None:
    address = verified(sealed, trust).address
    later = Trust(trust.publishers, {signer.own.public: Seen(revoked={address: "wrong labels"})})
    with pytest.raises(HubError, match=r"^revoked: bank@1 was taken back: wrong labels"):
        verified(sealed, later)


def test_a_key_that_is_not_trusted_is_refused_by_its_name_here(signer: Any, sealed: Path) -> None:
    with pytest.raises(HubError, match=r"^publisher:"):
        verified(sealed, Trust({"south": signer.other.public}))


def test_finite_is_asked_of_every_tensor_of_every_file(signer: Any, sealed: Path, trust: Trust, tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    for name in (layout.WEIGHTS, layout.HEAD):
        for bad in (np.nan, np.inf, -np.inf):
            folder = tmp_path / f"{name}{bad}"
            shutil.copytree(sealed, folder)
            tensors = load_file(folder / name)
            first = sorted(tensors)[0]
            tensors[first].flat[-1] = bad
            save_file(tensors, folder / name)
            signer.sign(folder)
            with pytest.raises(HubError, match=r"^tensors: .* not finite"):
                verified(folder, trust)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("r", 4),
        ("lora_alpha", 1.0),
        ("target_modules", ["encoder.layer.0.attention.self.query"]),
        ("base_model_name_or_path", "evil/base"),
        ("modules_to_save", ["embeddings"]),
        ("auto_mapping", {"parent_library": "os", "base_model_class": "system"}),
        ("use_dora", True),
        ("use_rslora", True),
        ("bias", "all"),
        ("trainable_token_indices", [1]),
        ("lora_dropout", False),
        ("a_field_of_tomorrow", "x"),
    ],
)
def test_peft_is_told_nothing_that_the_work_description_does_not_say(
    signer: Any, sealed: Path, trust: Trust, tmp_path: Path, field: str, value: Any
) -> None:
    folder = tmp_path / "changed"
    shutil.copytree(sealed, folder)
    told = json.loads((folder / layout.CONFIG).read_text())
    (folder / layout.CONFIG).write_text(json.dumps({**told, field: value}))
    signer.sign(folder)
    with pytest.raises(HubError, match=r"^(form|tensors|base): adapter_config.json"):
        verified(folder, trust)
