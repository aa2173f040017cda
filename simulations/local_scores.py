"""How good a site's own model is just before its update leaves: what spatial forgetting is measured from.

Only a simulation can say it, for one process sees both the site's model and its held-out records, and only without
privacy: a score of private records that nobody pays for must not be written where the server reads it.

==============================================  ===========================
run                                             rows
==============================================  ===========================
no held-out records (``sites.held_out`` = 0)    none
privacy on                                      none
a round that does not end a stage               none
a site that is on another stage than the run    none
a stage ended by an announcement                none: nobody knew
another backend than the one in this process    none
==============================================  ===========================

Source: ``continual/federated_metrics.py`` (``spatial_forgetting``).
"""

from __future__ import annotations

from typing import Any

from client.dataset import Cache, has_records, site_records
from client.site import Site
from llmchain_fl.config.calendar import calendar
from llmchain_fl.config.schema import RunConfig
from llmchain_fl.continual.federated_metrics import LOCAL
from llmchain_fl.core.messages import TrainTask
from llmchain_fl.core.work import WorkSpec, inference, open_work
from llmchain_fl.metrics_file import declaration


class LocalScores:
    """Rows of scope ``site``, metric ``local_<score>``, at the end of each stage."""

    def __init__(self, config: RunConfig) -> None:
        wanted = config.sites.held_out > 0 and not config.privacy.enabled
        self._last = {(span.last, span.stage) for span in calendar(config)} if wanted else set()
        self._cache: Cache = {}

    def rows(self, site: Site, task: TrainTask) -> list[dict[str, Any]]:
        """Of the model that is in memory now: the site's, right after its training."""
        if (task.round, task.stage) not in self._last or not has_records(site, task.stage_name, "held_out"):
            return []
        work = WorkSpec.from_json(task.work)
        _, nlp_task = open_work(work.resident, work.task)
        records = site_records(site, task.stage_name, "held_out", inference(work), nlp_task, self._cache)
        records.examples.candidate_labels = dict(work.task.candidate_labels).get(task.stage_name)
        metric = nlp_task.metrics[0]
        value = nlp_task.score(records.examples)[metric.name]
        row = {"round": task.round, "stage": task.stage, "scope": "site", "site": site.name, "task": task.stage_name}
        more = {"n": len(records.examples), **declaration(metric)}
        return [{**row, "metric": LOCAL + metric.name, "value": value, **more}]
