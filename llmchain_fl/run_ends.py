"""Two ways in which a run ends before its plan does; the tree of errors is ``core/errors.py``."""

from __future__ import annotations

from llmchain_fl.core.errors import RunError


class RunStopped(RunError):
    """A run that nobody can pay for any more and whose plan had more rounds; all that it has is written."""

    code = "budget"


class RunPaused(RunError):
    """A run that broke off for a passing reason and can be gone on with as it is; whoever started it says how."""
