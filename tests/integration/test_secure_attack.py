"""The words of a record, read back from all that the server has: single updates give them away, masked ones do not."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llmchain_fl.config.read import build
from llmchain_fl.config.schema import RunConfig
from llmchain_fl.core.array_record import unpack
from llmchain_fl.core.secure.numbers import word_width
from llmchain_fl.core.secure.seat import Seat
from llmchain_fl.core.secure.stream import add_stream
from llmchain_fl.core.secure.words import Words, low_bits, packed
from llmchain_fl.privacy.attacks.secure_view import View, grid
from llmchain_fl.privacy.attacks.token_recovery import most_frequent
from simulations.secure_attack import Attacked, Played, play

ROUND = 2
"""The first in which B is not 0."""
SITES = 3
MASKS = {"secure": {"sum": True}}
LOCKSTEP = {"aggregation": {"rule": "ffa"}, "train": {"method": "lockstep", "lr": 0.05}}
ONE = ("as it came", "own mask off")
"""Views of one site."""


def noise(unit: str) -> dict[str, Any]:
    """Shared, at epsilon 8."""
    return {"privacy": {"enabled": True, "epsilon": 8.0, "noise": "sum", "unit": unit}}


class Scene:
    """Made-up records, one at each site; runs over them, each played once."""

    def __init__(self, small: Any, folder: Path) -> None:
        draw = random.Random(4)
        texts = [" ".join(draw.choices(small.words, k=draw.randint(3, 8))) for _ in range(SITES + 160)]
        self.public = [{"text": text} for text in texts[SITES:]]
        own = "".join(json.dumps({"text": text, "person": text}) + "\n" for text in texts[:SITES])
        self._data, self._model, self._folder = folder / "train.jsonl", small.llama, folder
        self._data.write_text(own, encoding="utf-8")
        self._runs: dict[str, Played] = {}

    def _config(self, *more: dict[str, Any]) -> RunConfig:
        tree: dict[str, Any] = {
            "seed": 3,
            "model": {"path": str(self._model), "threads": 1, "max_tokens": 10},
            "adapter": {"rank": 8},
            "task": {"kind": "plain-text"},
            "data": {"train": str(self._data), "test": str(self._data)},
            "sites": {"count": SITES, "held_out": 0.0, "minimum": SITES},
            "train": {"steps": 1, "sampling_rate": 1.0, "batch_size": 1.0, "lr": 0.5, "optimizer": "sgd"},
            "continual": {"guards": []},
            "stage": [{"name": "only", "rounds": ROUND}],
        }
        tree["train"]["momentum"] = 0.0
        for sections in more:
            for name, section in sections.items():
                tree[name] = {**tree.get(name, {}), **section}
        return build(tree)

    def played(self, name: str, *more: dict[str, Any]) -> Played:
        """A run of two rounds; asked for by name again, the same one."""
        if name not in self._runs:
            self._runs[name] = play(self._config(*more), self._folder / name)
        return self._runs[name]


@pytest.fixture(scope="module")
def scene(small: Any, tmp_path_factory: pytest.TempPathFactory) -> Scene:
    return Scene(small, tmp_path_factory.mktemp("scene"))


FEDIT = {"aggregation": {"rule": "fedit"}}


def read_out(attacked: Attacked, view: View) -> bool:
    """Whether some word is found, by a server that allows for masks and noise or by one that does not."""
    return any(attacked.pursued(replace(view, blur=blur)).any() for blur in (view.blur, 0.0, 1e-6))


def test_an_update_gives_the_words_of_its_site_away_and_the_views_of_masked_ones_none(scene: Scene) -> None:
    """Rows of dA span the words. The sum without noise gives all words away: masks are not privacy by themselves."""
    plain = Attacked(scene.played("plain", FEDIT), ROUND)
    assert len(plain.seen()) == SITES
    for view in plain.seen():
        assert np.array_equal(plain.pursued(view), plain.truth(view) > 0)
    masked = Attacked(scene.played("masked", FEDIT, MASKS), ROUND)
    assert len(masked.seen()) == 3 * SITES + 1
    assert {view.name for view in masked.seen() if read_out(masked, view)} == {"the sum"}
    whole = masked.seen()[-1]
    assert np.array_equal(masked.pursued(whole), masked.truth(whole) > 0)


def test_with_shared_noise_the_sum_gives_no_word_away_either(scene: Scene) -> None:
    noised = Attacked(scene.played("noised", FEDIT, MASKS, noise("site")), ROUND)
    assert not any(read_out(noised, view) for view in noised.seen())


def test_the_attack_would_read_a_site_that_forgets_the_masks_of_pairs(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So the attack is alive on views, and what stops it above is these masks."""

    def own_mask_only(seat: Seat, words: Words, bits: int, shared: Sequence[str]) -> bytes:
        total = words.copy()
        add_stream(total, seat.secrets.self_seed)
        return packed(total & low_bits(bits), bits)

    monkeypatch.setattr(Seat, "masked", own_mask_only)
    broken = Attacked(scene.played("broken", FEDIT, MASKS), ROUND)
    read = {view.name: read_out(broken, view) for view in broken.seen()}
    assert read == {"as it came": False, "own mask off": True, "all but one": True, "the sum": True}


@pytest.mark.thorough
def test_a_learned_map_reads_updates_and_is_at_chance_on_everything_masked(scene: Scene) -> None:
    """Lockstep, person-level: only B is trained, so the words are guessed by a map learned on public text."""

    def recall(attacked: Attacked, names: tuple[str, ...]) -> tuple[float, float]:
        """(share of the words that are guessed, the same with as many guesses of the commonest words)"""
        made, bags = attacked.made(scene.public), attacked.bags(scene.public)
        hits, luck = [], []
        for name in names:
            seen = [view for view in attacked.seen() if view.name == name]
            guessed, prior = attacked.learned(made, bags, seen)
            for view, guess in zip(seen, guessed, strict=True):
                there = attacked.truth(view) > 0
                hits.append(guess[there].mean())
                luck.append(most_frequent(prior, int(guess.sum()))[there].mean())
        return float(np.mean(hits)), float(np.mean(luck))

    found, luck = recall(Attacked(scene.played("plain-b", LOCKSTEP), ROUND), ("an update",))
    assert found > 0.6 > luck + 0.3
    noised = Attacked(scene.played("noised-b", LOCKSTEP, MASKS, noise("person")), ROUND)
    found, luck = recall(noised, (*ONE, "all but one"))
    assert found < luck + 0.15


def test_there_is_nothing_else_in_the_messages_of_a_masked_run(scene: Scene) -> None:
    """What is attacked above is all: names, versions, round numbers, receipts, and signed bytes of the protocol."""
    log = scene.played("masked", FEDIT, MASKS).log
    texts = {"site", "version", "protocol", "round", "receipt", "data", "more"}
    for _, _, reply in log:
        assert {name for record in reply.content.config_records.values() for name in record} <= texts
        assert not reply.content.metric_records
        for record in reply.content.array_records.values():
            assert {(name, str(value.dtype)) for name, value in unpack(record).items()} == {
                ("key", "uint8"),
                ("sum", "uint8"),
            }


def test_the_views_are_of_the_very_sum_that_was_opened(scene: Scene) -> None:
    """The views of single sites, own masks off, add up to the sum: what hides them is the masks of pairs alone."""
    attacked = Attacked(scene.played("noised-b", LOCKSTEP, MASKS, noise("person")), ROUND)
    unit, modulus = grid(attacked.work), 2.0 ** word_width(attacked.work)
    whole = {view.name: view.vector / unit for view in attacked.seen()}["the sum"]
    bare = [view.vector / unit for view in attacked.seen() if view.name == "own mask off"]
    rest = [view.vector / unit for view in attacked.seen() if view.name == "all but one"]
    assert np.all(np.mod(np.sum(bare, axis=0) - whole, modulus) == 0)
    assert all(np.all(np.mod(one + other - whole, modulus) == 0) for one, other in zip(bare, rest, strict=True))
    assert min(np.abs(one).max() for one in (*bare, *rest)) > 0.4 * modulus  # masks fill the words
