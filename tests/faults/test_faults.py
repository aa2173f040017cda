"""Four laws under every fault of the table, for every method: the real server loop, real sites, a played clock.

1. No finished round is lost. 2. The run ends. 3. What is called completed has trained. 4. What has left a site is paid
for there, and stands in the server's book: counted by who saw it leave, and not by either.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from llmchain_fl.adapter.files import read_adapter
from llmchain_fl.core.privacy.accounting import epsilon
from llmchain_fl.core.privacy.charges import training_event
from llmchain_fl.privacy.plan_file import saved_plan
from server.checkpoint import read_state


def test_a_fault_costs_no_finished_round_no_endless_wait_and_no_epsilon_that_is_not_booked(
    fault: Any, method: str, play: Any
) -> None:
    played = play(fault, method)
    assert played.lost == []
    assert played.ended in fault.ends, f"{played.ended}: {played.why}"
    trained(played)
    paid(played)


def trained(played: Any) -> None:
    """A completed run has an adapter that is none of the start."""
    done = sorted({row["round"] for row in played.run.rows() if row["metric"] in ("seconds", "skipped")} - {0})
    if played.ended == "completed":
        assert done == list(range(1, 6))
        assert any(value.any() for name, value in read_adapter(played.run.adapter)[1].items() if "lora_B" in name)
    elif played.ended in ("failed", "paused"):
        assert not played.run.adapter.exists() or any(row["metric"] == "seconds" for row in played.run.rows())


def paid(played: Any) -> None:
    """Ledger and book against what was seen to leave."""
    saved = read_state(played.run.state)
    assert saved is not None
    plan = saved_plan(saved["privacy"]["plans"][0])
    book = played.run.read_privacy()["sites"]
    for site in played.sites:
        out = played.world.left[site.name]
        assert len({number for number, _ in out}) == len(out), "a round left twice, and differently"
        spent = site.open_ledger("person").spent()
        assert sum(event.steps for event in spent.events) >= len(out) * plan.steps_per_round
        if out:
            truth = epsilon(
                [training_event(plan, len(out), plan.counted(site.secure.counted_peers, site.listed))], plan.delta
            )
            assert spent.epsilon >= truth * (1 - 1e-9)
        assert book.get(site.name, {"rounds": 0})["rounds"] >= len(out), "the server's book has less"
        assert np.isfinite(spent.epsilon)
