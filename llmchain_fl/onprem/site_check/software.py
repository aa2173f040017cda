"""Versions, the code that would run here, the base model.

==================================================  =====================================================
here                                                line
==================================================  =====================================================
the version and the code of the kit                 ok
another version of this package                     refusal
the same version, other code                        refusal
another minor version of Flower                     warning
the site file approves no bundle, or not the kit's  warning
the base on this disk, with the kit's digest        ok
not on this disk, or with another digest            refusal
==================================================  =====================================================
"""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

from llmchain_fl import __version__
from llmchain_fl.core.base_digest import base_digest
from llmchain_fl.core.base_model import locate
from llmchain_fl.onprem.code import code_digest
from llmchain_fl.onprem.kit import SiteKit
from llmchain_fl.onprem.site_check.subject import Plan, Subject
from llmchain_fl.planning.findings import Findings


def check_software(subject: Subject, findings: Findings) -> None:
    """See the table of the module."""
    kit = subject.kit
    if kit is not None:
        _check_code(subject, kit, findings)
        _check_bundles(subject, kit, findings)
    if subject.plan is not None:
        _check_base(subject.plan, kit.base_digest if kit is not None else "", findings)


def _check_code(subject: Subject, kit: SiteKit, findings: Findings) -> None:
    if __version__ != kit.version:
        findings.fault(
            "code",
            f"llmchain-fl {__version__} is installed, the kit is for {kit.version}",
            f"pip install llmchain-fl=={kit.version}",
        )
    elif code_digest(subject.app) != kit.code:
        findings.fault(
            "code",
            "the installed files that run at a site are not those of the kit, though the version is the same",
            "install it anew; compare `llmchain-fl bundle --list` with the coordinator's",
        )
    else:
        findings.fact("code", f"llmchain-fl {__version__}, the very files of the kit")
    here = version("flwr")
    if here.split(".")[:2] != kit.flower.split(".")[:2]:
        findings.warn(
            "code", f"Flower {here} is installed, the coordinator has {kit.flower}", f"pip install flwr=={kit.flower}"
        )


def _check_bundles(subject: Subject, kit: SiteKit, report: Findings) -> None:
    approved = set(subject.site.approved.bundles)
    if not approved:
        report.warn("code", "the site file approves no bundle", "read the code, then write [approved] bundles = [...]")
    elif not approved & set(kit.bundles):
        report.warn(
            "code",
            "the site file does not approve the kit's bundle: runs will be refused",
            "read the new code, then take [approved] of the new kit",
        )


def _check_base(plan: Plan, digest: str, findings: Findings) -> None:
    located = findings.attempt("base", locate, plan.config.model.path)
    if located is None:
        return
    if not located.local:
        findings.fault("base", f"{located.public_name} is not on this disk", "download it into a folder beforehand")
        return
    here = findings.attempt("base", base_digest, Path(located.path))
    if here is not None and digest and here != digest:
        findings.fault("base", f"{located.public_name} is not the model of the kit", "get the one of the kit's digest")
    elif here is not None:
        findings.fact("base", f"{located.public_name}, {here[:19]}...")
