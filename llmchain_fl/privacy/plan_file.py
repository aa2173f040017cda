"""A privacy plan out of what a run has written of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields

from llmchain_fl.core.privacy.plan import PrivacyPlan, refuse


def saved_plan(values: Mapping[str, object]) -> PrivacyPlan:
    """The plan of ``PrivacyPlan.to_dict``; every field must be there and nothing else.

    Raises:
        PrivacyError: for missing, unknown or faulty fields.
    """
    names = {field.name for field in fields(PrivacyPlan)}
    faults = [f"{name} is missing" for name in sorted(names - set(values))]
    faults += [f"{name} is not a field of a privacy plan" for name in sorted(set(values) - names)]
    refuse(faults)
    return PrivacyPlan(**dict(values))  # type: ignore[arg-type]
