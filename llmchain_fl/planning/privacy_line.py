"""What a run will cost, in one line for whoever checks a scenario."""

from __future__ import annotations

from llmchain_fl.config.schema import RunConfig
from llmchain_fl.planning.findings import Findings
from llmchain_fl.planning.forecast import forecast, warnings
from llmchain_fl.planning.shared_noise import shared_noise
from llmchain_fl.planning.trusted_peers import in_words
from llmchain_fl.report.wording import epsilon_text, guarantee


def check_privacy(config: RunConfig) -> Findings:
    """The forecast, and what a careful reader would object to."""
    findings = Findings()
    plan = findings.attempt("privacy", forecast, config)
    if plan is None:
        if not findings.faulty:
            findings.fact("privacy", "none: what sites send is neither clipped nor noised")
        return findings
    event, terms = plan.round_event, guarantee(plan.delta, plan.unit, plan.accountant, plan.noise)
    spent = epsilon_text(plan.epsilon_after(plan.rounds), terms)
    findings.fact(
        "privacy",
        f"epsilon {spent} after {plan.rounds} rounds, noise multiplier {event.noise_multiplier:.3g}, "
        f"sampling rate {event.sampling_rate:.3g}",
    )
    if shared := shared_noise(config, plan):
        findings.fact("privacy", f"{in_words(shared.by_trusted_peers())} ({terms.partition(', noise')[0]})")
    for sentence in warnings(plan):
        findings.warn("privacy", sentence)
    return findings
