"""What a run will cost, in one line for whoever checks a scenario."""

from __future__ import annotations

from llmchain_fl.config.schema import RunConfig
from llmchain_fl.planning.findings import Findings
from llmchain_fl.planning.forecast import forecast, warnings


def check_privacy(config: RunConfig) -> Findings:
    """The forecast, and what a careful reader would object to."""
    found = Findings()
    plan = found.attempt("privacy", forecast, config)
    if plan is None:
        if not found.faulty:
            found.fact("privacy", "none: what sites send is neither clipped nor noised")
        return found
    event = plan.round_event
    found.fact(
        "privacy",
        f"epsilon {plan.epsilon_after(plan.rounds):.2f} at delta {plan.delta:g} for one {plan.unit} after "
        f"{plan.rounds} rounds ({plan.accountant.upper()}), noise multiplier {event.noise_multiplier:.3g}, "
        f"sampling rate {event.sampling_rate:.3g}",
    )
    for sentence in warnings(plan):
        found.warn("privacy", sentence)
    return found
