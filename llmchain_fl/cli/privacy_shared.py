"""``llmchain-fl privacy plan`` of noise that the sites share: whom its epsilon holds against, what sharing is worth."""

from __future__ import annotations

import math
from typing import Any

from rich.console import Console
from rich.table import Table

from llmchain_fl.planning.shared_noise import SharedNoise
from llmchain_fl.planning.trusted_peers import peers_to_show
from llmchain_fl.report import wording


def say_shared(console: Console, shared: SharedNoise) -> None:
    """Print both tables."""
    plan, rounds = shared.plan, wording.count(shared.forecast.rounds, "round")

    def say(text: str) -> None:
        console.print(text, highlight=False, markup=False, soft_wrap=True)

    say(f"\nEpsilon of all {rounds}, with the same terms, by how many of the other sites are trusted never to tell")
    say("their noise to the server: it holds against the server with all the others. A site's own ledger counts by")
    say("its own file (secure.counted_peers).")
    table = Table("trusted", "with the server", "shares unknown", "epsilon", "", box=None, padding=(0, 2))
    for trusted in peers_to_show(plan.members):
        others, note = plan.members - 1 - trusted, _note(trusted, plan.members)
        shares = f"{shared.known(trusted)} of {plan.shares}"
        table.add_row(f"{trusted}", f"{others}", shares, wording.epsilon_text(shared.epsilon(trusted)), note)
    console.print(table)
    other = "at the server (trusted)" if plan.unit == "site" else "at each site"
    say("\nStandard deviation of the noise on each coordinate of the mean step, for the same epsilon, shared and not:")
    worth = Table("sites in the sum", "on the sum", other, "", box=None, padding=(0, 2))
    for sites in sorted({plan.shares, plan.members}):
        mine, theirs = shared.on_the_sum(sites), shared.not_shared(sites)
        worth.add_row(f"{sites}", f"{mine:.3g}", f"{theirs:.3g}", f"{_ratio(theirs, mine)}")
    console.print(worth)


def shared_as_dict(shared: SharedNoise | None) -> dict[str, Any]:
    """The same as plain values; nothing where no noise is shared. An epsilon without a bound is null."""
    if shared is None:
        return {}
    plan = shared.plan
    return {
        "shares": plan.shares,
        "members": plan.members,
        "epsilon_by_trusted_peers": {
            str(trusted): _finite(value) for trusted, value in shared.by_trusted_peers().items()
        },
        "noise_of_the_mean_step": [
            {"sites": sites, "sum": shared.on_the_sum(sites), "not_shared": shared.not_shared(sites)}
            for sites in sorted({plan.shares, plan.members})
        ],
    }


def _note(trusted: int, members: int) -> str:
    notes = {0: "own share only", members - 2: "any one other", members - 1: "the server alone"}
    return notes.get(trusted, "")


def _ratio(theirs: float, mine: float) -> str:
    return f"{theirs / mine:.2g} times less" if mine and math.isfinite(theirs / mine) else ""


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
