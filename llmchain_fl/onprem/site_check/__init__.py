"""What an engineer should know before a site joins: one line each, ok, warning or refusal, with its remedy.

Nothing leaves the site (but an empty request to the coordinator), nothing is written, no record is quoted: lines hold
counts, lengths, paths and names of ours.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from llmchain_fl.onprem.site_check.budget import check_budget
from llmchain_fl.onprem.site_check.coordinator import check_coordinator
from llmchain_fl.onprem.site_check.keys import check_keys
from llmchain_fl.onprem.site_check.machine import check_machine
from llmchain_fl.onprem.site_check.records import check_records
from llmchain_fl.onprem.site_check.software import check_software
from llmchain_fl.onprem.site_check.subject import Subject
from llmchain_fl.planning.findings import Findings

CHECKS: Mapping[str, Callable[[Subject, Findings], None]] = {
    "records": check_records,
    "machine": check_machine,
    "keys": check_keys,
    "coordinator": check_coordinator,
    "software": check_software,
    "budget": check_budget,
}


def check_site(subject: Subject) -> Findings:
    """All checks; one that fails in a way that nobody foresaw is a refusal that names its kind, and no more."""
    report = Findings()
    if subject.kit is None:
        report.warn("kit", "there is none here: coordinator, keys and code are not checked", "give the folder of a kit")
    if subject.plan is None:
        report.warn("plan", "none is known here: what it would spend is not checked", "give --scenario FILE")
    for about, check in CHECKS.items():
        try:
            check(subject, report)
        except Exception as error:  # its text may hold anything
            report.fault(
                about, f"could not be checked ({type(error).__name__})", "tell the maintainers; no record is shown"
            )
    return report
