"""The whole run: rounds, stages, guards, scores, records, state. Resumable after every round."""

from __future__ import annotations

import time
from typing import Any

from flwr.serverapp import Grid

from llmchain_fl.adapter.files import Lineage, write_adapter
from llmchain_fl.adapter.value import Arrays
from llmchain_fl.config.schema import RunConfig
from llmchain_fl.continual.guards import ServerGuards
from llmchain_fl.errors import RunError
from llmchain_fl.progress import Progress, RoundReport
from llmchain_fl.run_dir import RunDir
from llmchain_fl.work import WorkSpec
from server.checkpoint import RunState, save_state
from server.cohort import meet
from server.privacy_book import PrivacyBook
from server.records import round_rows, score_rows, stage_rows_of
from server.schedule import Slot
from server.scoring import Scorer, Scores
from server.strategy import FederatedLora, RoundOutcome


class Loop:
    """Drives a strategy over all rounds. Made by ``server/app.py``."""

    def __init__(
        self,
        config: RunConfig,
        work: WorkSpec,
        strategy: FederatedLora,
        guards: ServerGuards,
        scorer: Scorer,
        book: PrivacyBook,
        run: RunDir,
        state: RunState,
        progress: Progress,
    ) -> None:
        self._config, self._work, self._strategy, self._guards = config, work, strategy, guards
        self._scorer, self._book, self._run, self._state, self._progress = scorer, book, run, state, progress

    def play(self, grid: Grid) -> None:
        """All rounds that are not done yet.

        Raises:
            RunError: a round in which no asked site did its part (a budget that is used up ends the run quietly).
        """
        state, slots = self._state, self._strategy.slots
        self._strategy.nodes = meet(grid, self._config.sites)
        self._progress.started(len(slots), state.round, len(self._strategy.nodes), self._book.terms)
        if state.round == 0:
            self._score_start()
        for number in range(state.round + 1, len(slots) + 1):
            if state.stopped:
                break
            self._round(slots[number], grid)
        self._finish()

    def _round(self, slot: Slot, grid: Grid) -> None:
        started = time.monotonic()
        strategy = self._strategy
        strategy.current, strategy.guard_arrays = self._state.current, self._guards.payload()
        able = [site for site in strategy.nodes if self._book.affords(site, slot.stage_name)]
        asked = strategy.cohort(slot.round, able)
        if not able:
            return self._nobody_can(slot, grid)
        self._progress.round_started(slot.round, slot.stage_name, len(asked))
        replies = grid.send_and_receive(strategy.ask(slot, asked), timeout=self._config.sites.reply_seconds)
        outcome = strategy.collect(slot, replies)
        if self._nobody_came(slot, asked, outcome):
            return None
        self._book.charge((site for site in asked if site not in outcome.declined), slot.stage_name)
        self._state.current = outcome.arrays
        self._state.serving = self._guards.after_aggregate(outcome.arrays)
        trained = time.monotonic() - started
        scores = self._scorer.score(self._state.serving, self._scorer.each_round)
        self._record(slot, asked, outcome, scores, trained)
        if slot.last:
            self._end_stage(slot, grid, scores)
        self._keep(slot)
        return self._tell(slot, asked, outcome, scores, time.monotonic() - started)

    def _nobody_can(self, slot: Slot, grid: Grid) -> None:
        """No site can pay for this round. Disjoint stages have a budget each: the next one may go on."""
        if self._config.privacy.stages == "shared" or slot.stage == len(self._config.stage) - 1:
            return self._stop("every site has used up its budget")
        if slot.last:
            self._end_stage(slot, grid, self._scorer.score(self._state.serving, self._scorer.each_round))
        return self._keep(slot)

    def _nobody_came(self, slot: Slot, asked: list[str], outcome: RoundOutcome) -> bool:
        """Whether the round failed as a whole.

        Raises:
            RunError: it did, and not because of budgets.
        """
        if outcome.admitted or not asked:
            return False
        reasons = sorted(set(outcome.refused.values()))
        if reasons == ["budget"]:
            self._stop("every site has used up its budget")
            return True
        raise RunError(
            f"round {slot.round}: none of {len(asked)} sites gave an update ({', '.join(reasons)})",
            remedy="look at the sites' logs; the run goes on from here with --resume",
        )

    # -- records --------------------------------------------------------------------------------------------------

    def _score_start(self) -> None:
        scores = self._scorer.score(self._state.serving, self._scorer.each_round)
        self._run.truncate_after(-1)
        self._run.append_rows(score_rows(0, -1, scores, self._scorer.sizes(self._scorer.each_round)))

    def _record(self, slot: Slot, asked: list[str], outcome: RoundOutcome, scores: Scores, seconds: float) -> None:
        rows = score_rows(slot.round, slot.stage, scores, self._scorer.sizes(self._scorer.each_round))
        rows += round_rows(slot.round, slot.stage, slot.stage_name, outcome, seconds)
        rows += self._book.rows(slot.round, slot.stage, asked)
        self._run.append_rows(rows)
        self._run.write_privacy(self._book.as_json(self._strategy.nodes))

    def _end_stage(self, slot: Slot, grid: Grid, scores: Scores) -> None:
        """R matrix row, site scores, adapter on disk, consolidation for the next stage."""
        name = self._scorer.task.score_name
        seen = [stage.name for stage in self._config.stage]
        rows = stage_rows_of(self._run.rows(), slot.round, slot.stage, seen, scores, name)
        if self._config.sites.held_out:
            known = tuple(seen[: slot.stage + 1])
            asked = self._strategy.ask_scores(slot.round, known, self._state.serving)
            replies = grid.send_and_receive(asked, timeout=self._config.sites.reply_seconds)
            found = self._strategy.collect_scores(replies)
            self._book.charge_scores(set(self._strategy.nodes) - self._strategy.unscored, len(known))
            rows += _site_rows(slot, found, name)
        self._run.append_rows(rows)
        self._write(self._run.stage_adapter(slot.stage, slot.stage_name), slot)
        self._state.current = self._guards.on_stage_end(self._state.current, self._state.serving)

    def _keep(self, slot: Slot) -> None:
        state = self._state
        state.round, state.spendings, state.guards = slot.round, self._book.spendings, self._guards.state()
        state.rule = dict(self._strategy.rule.state())
        state.receipts, state.clip = dict(self._strategy.receipts), self._strategy.clip
        save_state(self._run.state, state)

    def _write(self, folder: Any, slot: Slot) -> None:
        full: Arrays = self._scorer.full(self._state.serving)
        lineage = Lineage(self._state.run, slot.round, slot.stage_name, self._state.lineage)
        content = write_adapter(folder, self._scorer.resident, full, self._work, lineage)
        if folder != self._run.adapter:
            self._state.lineage = content

    def _stop(self, why: str) -> None:
        self._state.stopped = why

    def _tell(self, slot: Slot, asked: list[str], outcome: RoundOutcome, scores: Scores, seconds: float) -> None:
        name = self._scorer.task.score_name
        self._progress.round_finished(
            RoundReport(
                round=slot.round,
                total=len(self._strategy.slots),
                stage_name=slot.stage_name,
                admitted=len(outcome.admitted),
                asked=len(asked),
                seconds=seconds,
                score_name=name,
                scores={task: values[name] for task, values in scores.items()},
                epsilon=self._book.worst(),
                privacy=self._book.terms,
                bytes_up=sum(outcome.bytes_up.values()),
                bytes_down=sum(outcome.bytes_down.values()),
                refused=outcome.refused,
            )
        )

    def _finish(self) -> None:
        """The last adapter, the score kept for the end, the privacy record."""
        state = self._state
        slot = self._strategy.slots[max(state.round, 1)]
        self._write(self._run.adapter, slot)
        if self._scorer.only_at_the_end:
            final = self._scorer.score(state.serving, "test")
            rows = score_rows(state.round, slot.stage, final, self._scorer.sizes("test"), prefix="test_")
            self._run.append_rows(rows)
        self._run.write_privacy(self._book.as_json(self._strategy.nodes))
        self._progress.finished(state.stopped or f"{state.round} rounds done")


def _site_rows(slot: Slot, found: dict[str, dict[str, float]], name: str) -> list[dict[str, Any]]:
    base = {"round": slot.round, "stage": slot.stage, "scope": "site", "metric": name, "n": None}
    return [
        {**base, "site": site, "task": task, "value": value}
        for site, tasks in sorted(found.items())
        for task, value in tasks.items()
    ]
