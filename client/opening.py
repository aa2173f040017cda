"""What a round is played with: the resident model and the task over it, within what the site has and allows."""

from __future__ import annotations

import os

import torch

from client import trial
from client.rounds import SealOf
from client.site import Site
from client.steady import Brought, shape_for
from llmchain_fl.core.privacy.plan import PrivacyPlan
from llmchain_fl.core.privacy.release import Ledger
from llmchain_fl.core.tasks.base import Task
from llmchain_fl.core.tasks.passes import Shape
from llmchain_fl.core.work import WorkSpec, open_work

MOST_IN_A_PASS = 1024
"""Records of a pass without privacy, whatever the task wishes, where the site file says nothing."""


def opened(site: Site, work: WorkSpec, trained: tuple[str, ...], brought: Brought) -> tuple[Task, Shape | None, int]:
    """(the task over the resident model, the shape of private passes, records of a plain pass).

    Raises:
        ModelError: the base cannot be loaded, does not fit, or needs more than the site has.
    """
    use_threads(work, site.compute.threads)
    micro = max(1, min(work.train.micro_batch, site.compute.micro_batch or MOST_IN_A_PASS))
    private = work.plan is not None and work.plan.unit != "site"
    resident, nlp_task = open_work(work.resident, work.task)
    resident.focus(trained)
    rows = (site.compute.rows or 16) if private else micro
    trial.check_memory(work, resident, rows, site.limits.memory_mb or machine_mb(), site.limits.max_trained)
    shape = shape_for(resident, nlp_task, work.task.max_tokens, site.compute.rows, brought) if private else None
    return nlp_task, shape, micro


def seals_of(ledger: Ledger, plan: PrivacyPlan | None, run: str) -> SealOf | None:
    """By which what was kept between rounds is believed; None in a run without privacy."""
    return None if plan is None else lambda number: ledger.seal_of(f"{run}/{number}")


def use_threads(work: WorkSpec, own: int = 0) -> None:
    """The site's own number of threads, else the task's wish; never more than the machine has. It changes no result."""
    wanted = min(own or work.threads, os.cpu_count() or 1)
    if wanted and torch.get_num_threads() != wanted:
        torch.set_num_threads(wanted)


def machine_mb() -> int:
    """Memory of the machine, MB."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20
