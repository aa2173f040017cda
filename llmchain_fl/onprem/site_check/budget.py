"""The ledger, whether the site's policy takes the plan, and what the plan would spend here.

======================================================  =========================================================
here                                                    line
======================================================  =========================================================
no ledger yet                                           ok
a ledger that is verified                               ok: spent, left
damaged, rolled back, of another name                   refusal
the policy refuses the plan (unit, delta, base, caps)   refusal, in its words
the plan spends no more than is left                    ok: epsilon before and after
it spends more                                          warning: how many rounds are paid for
not even its first round is paid for                    refusal
a plan without privacy                                  ok, if the policy takes it
======================================================  =========================================================

"After" is of somebody who is in all that the ledger holds and in the whole plan.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from llmchain_fl.core.privacy.accounting import epsilon
from llmchain_fl.core.privacy.charges import training_event
from llmchain_fl.core.privacy.events import Event
from llmchain_fl.onprem.site_check.subject import Plan, Subject
from llmchain_fl.planning.findings import Findings
from llmchain_fl.planning.forecast import Forecast, calibrated_noise, forecast
from llmchain_fl.planning.shared_noise import shared_noise
from llmchain_fl.planning.work import plan_from, work_from
from llmchain_fl.privacy.reading import Reading, read_ledger
from llmchain_fl.report.wording import epsilon_text

ACCOUNTANT = "pld"


def check_budget(subject: Subject, findings: Findings) -> None:
    """See the table of the module."""
    before = len(findings)
    reading = findings.attempt("ledger", _reading, subject)
    if len(findings) > before:
        return
    if reading is None:
        findings.fact("ledger", "nothing was spent yet")
    else:
        spent = f"epsilon {epsilon_text(reading.spent.epsilon)} spent of {reading.terms.epsilon_limit:g}"
        findings.fact("ledger", f"verified, {reading.length} lines: {spent}")
    if subject.plan is not None:
        findings.attempt("plan", _check_policy, subject, subject.plan)
        planned = findings.attempt("plan", forecast, subject.plan.config)
        if planned is not None:
            _check_cost(subject, subject.plan, planned, reading, findings)
        elif not subject.plan.config.privacy.enabled:
            findings.fact("plan", "it trains without differential privacy, and spends nothing of the budget")


def _reading(subject: Subject) -> Reading | None:
    site = subject.site
    return read_ledger(
        site.ledger_folder,
        site.anchor_file,
        site=site.name,
        delta=site.limits.delta,
        accountant=ACCOUNTANT,
        epsilon_limit=site.limits.epsilon,
    )


def _check_policy(subject: Subject, plan: Plan) -> None:
    """Raises what the site would answer to the plan's tasks."""
    privacy = plan_from(plan.config, calibrated_noise(plan.config), 0.0)
    subject.site.check(work_from(plan.config, dict(plan.labels), (), privacy))


def _check_cost(subject: Subject, plan: Plan, planned: Forecast, reading: Reading | None, findings: Findings) -> None:
    limits, spent = subject.site.limits, 0.0 if reading is None else reading.spent.epsilon
    past = [()] if reading is None else [tuple(events) for _, events in reading.spent.groups] or [()]

    def after(rounds: int) -> float:
        own = events_here(subject, plan, planned, rounds)
        return max(epsilon((*group, *own), limits.delta, ACCOUNTANT) for group in past)

    whole = planned.rounds
    total = after(whole)
    way = f"from epsilon {epsilon_text(spent)} to {epsilon_text(total)} of {limits.epsilon:g}"
    summary = f"its {whole} rounds take this site {way}"
    if total <= limits.epsilon:
        findings.fact("plan", summary)
    elif after(1) > limits.epsilon:
        findings.fault("plan", f"{summary}: not even the first round is paid for", _remedy(subject))
    else:
        paid = _most(whole, lambda rounds: after(rounds) <= limits.epsilon)
        findings.warn("plan", f"{summary}: the budget ends after about {paid} of them", _remedy(subject))


def _remedy(subject: Subject) -> str:
    shared = " or secure.counted_peers, if more of the others can be trusted," if subject.site.secure.peers else ""
    return f"ask for a plan that spends less; or let the data holder raise limits.epsilon{shared} in the site file"


def events_here(subject: Subject, plan: Plan, planned: Forecast, rounds: int) -> Sequence[Event]:
    """What one unit is in after so many rounds, as the ledger here books it: of shared noise, the shares it counts."""
    shared = shared_noise(plan.config, planned)
    if shared is None:
        return planned.events(rounds)
    count = planned.counted(rounds)
    return (training_event(shared.plan, count, shared.plan.counted(subject.site.secure.counted_peers)),)


def _most(whole: int, holds: Callable[[int], bool]) -> int:
    """The most rounds for which ``holds``, which holds for the first and not for all."""
    low, high = 1, whole
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low
