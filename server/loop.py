"""The whole run: rounds, stages, guards, scores, records, state. Resumable after every round."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from flwr.serverapp import Grid

from llmchain_fl.config.calendar import absent_sites, stages_in_order, to_come, unknown_sites
from llmchain_fl.config.schema import RunConfig
from llmchain_fl.core.adapter.value import Arrays
from llmchain_fl.core.errors import ConfigError, LlmchainError, RunError
from llmchain_fl.core.work import WorkSpec
from llmchain_fl.guards.protocol import View
from llmchain_fl.guards.server_guards import ServerGuards
from llmchain_fl.next_stage import announced
from llmchain_fl.progress import Progress
from llmchain_fl.run_dir import RunDir
from llmchain_fl.run_ends import RunPaused
from server.checkpoint import Stateful, save_state
from server.ending import Ending
from server.lost_round import asked_and_not_saved
from server.masked_round import MaskedRounds
from server.outcome import RoundOutcome
from server.privacy_book import PrivacyBook
from server.quarantine import Quarantine
from server.recorder import Recorder
from server.references import References
from server.roll_call import RollCall, connected
from server.schedule import ScheduledRound
from server.scoring import Scorer, Scores
from server.site_scores import scores_of_sites
from server.sound import unsound
from server.state import RunState
from server.strategy import FederatedLora
from server.upload import upload_of
from server.view import view_of


@dataclass(frozen=True)
class Parts:
    """What a run is made of (``server/build.py``)."""

    state: RunState
    strategy: FederatedLora
    guards: ServerGuards
    scorer: Scorer
    book: PrivacyBook
    quarantine: Quarantine
    references: References
    masked: MaskedRounds | None
    """Plays the rounds where the server learns sums only; None: each update is seen."""
    stateful: Mapping[str, Stateful]
    """Everything that remembers something from round to round, by the name under which it is saved."""
    start: Arrays
    """The adapter before round 1."""


class Loop:
    """Drives a strategy over all rounds. Made by ``server/build.py``."""

    def __init__(self, config: RunConfig, work: WorkSpec, parts: Parts, run: RunDir, progress: Progress) -> None:
        self._config, self._work, self.parts, self._run, self._progress = config, work, parts, run, progress
        self._state, self._strategy, self._guards = parts.state, parts.strategy, parts.guards
        self._scorer, self._book, self._quarantine = parts.scorer, parts.book, parts.quarantine
        state = self._state
        self._before = state.current
        """The global arrays at the beginning of the round."""
        enough = max(config.sites.minimum, config.survivors if config.secure.sum else 0)
        called = config.sites.model_copy(update={"minimum": enough})
        self._roll = RollCall(called, list(state.nodes), absent_sites(config, state.round + 1, state.ended))
        self.recorder = Recorder(config, work, *self._scored(), parts.references, run, state)
        self._unsaved = set[str]()
        """Sites that were asked for the next round by a process that did not live to save it."""
        self._ending = Ending(parts.strategy, self._scorer, self._book, self.recorder, run, state, progress)

    def _scored(self) -> tuple[Scorer, PrivacyBook, ServerGuards, Quarantine]:
        return self._scorer, self._book, self._guards, self._quarantine

    def play(self, grid: Grid) -> None:
        """All rounds that are not done yet. A round that was asked moves the run on, or ends it.

        Raises:
            ConfigError: an arrival of a site that is not there.
            RunError: a round in which no asked site did its part, a score that is not finite, or nothing was trained.
            RunStopped: nobody can pay any more; all is written (``ending.py``).
        """
        state, again = self._state, bool(self._state.stopped)
        self._unsaved = asked_and_not_saved(self._run, state.run, state.round)
        if not again:
            self._gather(grid)
            self._reopen()
        while state.round < len(self._strategy.rounds) and not state.stopped:
            good = state.current, state.serving, state.summed
            try:
                self._round(self._strategy.rounds[state.round + 1], grid)
            except LlmchainError as error:
                state.current, state.serving, state.summed = good
                self._ending.broken(error.what)
                raise
        self._ending.finish(again=again)

    def _gather(self, grid: Grid) -> None:
        """Who takes part; the scores before any training; from here on a run that breaks off can be gone on with."""
        state, strategy = self._state, self._strategy
        state.nodes = self._roll.first(grid)
        strangers = unknown_sites(self._config, state.nodes)
        strangers += [
            f'sites.excluded: there is no site "{x}"' for x in self._config.sites.excluded if x not in state.nodes
        ]
        if strangers:
            raise ConfigError(strangers)
        upload = upload_of(self._config, self._work, strategy.rule, state.current)
        total = len(strategy.rounds)
        self._progress.started(total, state.round, len(state.nodes), self._book.terms, upload)
        if state.round == 0:
            self.recorder.start()
            self.save()

    def _round(self, planned: ScheduledRound, grid: Grid) -> None:
        started = time.monotonic()
        strategy = self._strategy
        if planned.fresh:
            self._start_anew()
        state, self._before = self._state, self._state.current
        strategy.guard_arrays = self._guards.payload()
        present = strategy.present(planned)
        able = [
            site for site in present if self._book.affords(site, present[site], strategy.earlier(site, planned.round))
        ]
        state.nodes = self._roll.again(grid, able)
        here = [site for site in able if site in connected(state.nodes)]
        masked = self.parts.masked
        begun = masked.pending(planned.round) if masked is not None else []
        cohort = begun or strategy.cohort(planned.round, self._quarantine.able(planned.round, here))
        if not cohort:
            return self._skip(planned, grid, "nobody can pay" if present and not able else "nobody is there")
        self._unsaved -= set(begun)  # the book that was saved between the trips has them
        self._charge(planned, [] if begun else cohort)
        self._progress.round_started(planned.round, planned.stage_name, len(cohort))
        if masked is not None:
            outcome = masked.play(planned, grid, cohort)
        else:
            replies = grid.send_and_receive(strategy.ask(planned, cohort), timeout=strategy.reply_seconds)
            outcome = strategy.collect(planned, replies)
        outcome.away = sorted(set(able) - connected(state.nodes))
        self._quarantine.record(planned.round, outcome.admitted, outcome.refused, outcome.declined)
        self._spare(planned, outcome.spared)
        if not outcome.admitted:
            return self._failed(planned, grid, {site: present[site] for site in cohort}, outcome)
        self._go_on(planned, outcome)
        trained = time.monotonic() - started
        due = planned.last or planned.round % self._config.data.test_every == 0
        scores = self.recorder.scores(planned.round) if due else {}
        self.recorder.round(planned, cohort, outcome, scores, trained)
        self._run.write_privacy(self._book.as_json(state.nodes, peers=planned.last))
        if self._announced(planned):
            planned = strategy.rounds[planned.round]  # now the last of its stage
        if planned.last:
            scores = scores or self.recorder.late(planned)
            self._end_stage(planned, grid, scores)
        self._keep(planned)
        seconds, total = time.monotonic() - started, len(strategy.rounds)
        return self._progress.round_finished(self.recorder.report(planned, total, cohort, outcome, scores, seconds))

    def _charge(self, planned: ScheduledRound, sites: Collection[str]) -> None:
        """Before anybody is asked: these may pay, and so may those whom a process asked that did not live to save the
        round. It stands in ``privacy.json`` whatever happens now."""
        self._book_round(planned, sorted({*sites, *self._unsaved}), 1)
        self._run.write_privacy(self._book.as_json(self._state.nodes, peers=False))

    def _spare(self, planned: ScheduledRound, spared: Collection[str]) -> None:
        """These have paid nothing, unless they had been asked before."""
        self._book_round(planned, [site for site in spared if site not in self._unsaved], -1)
        self._unsaved = set()

    def _book_round(self, planned: ScheduledRound, sites: Iterable[str], count: int) -> None:
        present = self._strategy.present(planned)
        for site in sites:
            records = present.get(site, planned.stage_name)
            self._book.charge([site], records, self._strategy.earlier(site, planned.round), count)

    def _go_on(self, planned: ScheduledRound, outcome: RoundOutcome) -> None:
        """The new arrays, and what guards make of them; after a void round, or one of too few, what there was."""
        view, state = self._view(planned), self._state
        state.summed += outcome.summed
        state.current = self._sound(self._guards.step(view, outcome.arrays))
        state.serving = self._sound(self._guards.serve(view, state.current))

    def _sound(self, arrays: Arrays) -> Arrays:
        """What may be saved and handed on.

        Raises:
            RunError: a guard made something of sound arrays that is not.
        """
        fault = unsound(arrays, self._work.adapter.scale)
        if fault:
            message = f"round {self._state.round + 1}: what the guards made of the round is not fit to be used: {fault}"
            raise RunError(message, remedy="start a new run with weaker guards or a lower train.lr")
        return arrays

    def _announced(self, planned: ScheduledRound) -> bool:
        """Whether the operator has said that this stage is over; the calendar then goes on from here."""
        names = [stage.name for stage in stages_in_order(self._config)]
        if self._config.stream.boundaries != "announced" or not announced(self._run, planned.stage_name, names):
            return False
        self._state.ended[planned.stage_name] = planned.round
        return True

    def _start_anew(self) -> None:
        """The baseline ``alone``: adapter, rule and guards as before round 1."""
        self._state.current = self._state.serving = dict(self.parts.start)
        self._strategy.rule.load_state({})
        self._guards.start_anew()

    def _failed(self, planned: ScheduledRound, grid: Grid, assigned: Mapping[str, str], outcome: RoundOutcome) -> None:
        """No update could be summed; ``assigned``: site -> what it was to train on.

        Where every site says that its own budget is used up (it knows of more than this run), it is not asked for that
        again, and the run goes on with the next round. A secure sum that could not be begun is not begun again: sites
        are bound to the first directory of a round.

        Raises:
            RunPaused: it was not for budgets.
        """
        reasons = sorted(set(outcome.refused.values()))
        if reasons != ["budget"]:
            if "secure" in reasons:
                self._skip(planned, grid, "no sum could be begun")
            message = f"round {planned.round}: none of {len(assigned)} sites gave an update ({', '.join(reasons)})"
            raise RunPaused(message, remedy="look at the sites' logs")
        for site, records in assigned.items():
            self._book.mark(site, records, self._strategy.earlier(site, planned.round))
        self._skip(planned, grid, "nobody can pay")

    def _skip(self, planned: ScheduledRound, grid: Grid, why: str) -> None:
        """A round without training passes; the run is stopped where nobody can pay for anything to come either."""
        if self._unsaved:
            self._charge(planned, ())
            self._spare(planned, ())
        if why == "nobody can pay" and not self._can_go_on(planned):
            self._state.stopped = self._book.spent_out(planned.stage_name)
            return self.save()
        self.recorder.skipped(planned, why)
        if self._announced(planned):
            planned = self._strategy.rounds[planned.round]
        if planned.last:
            self._end_stage(planned, grid, self.recorder.scores(planned.round))
        return self._keep(planned)

    def _can_go_on(self, planned: ScheduledRound) -> bool:
        """Whether some site can pay for something it is still to train on."""
        config, ended = self._config, self._state.ended
        sites = [site for site in self._state.nodes if site not in config.sites.excluded]
        ahead = ((site, name) for site in sites for name in to_come(config, site, planned.round, ended))
        return any(self._book.affords(site, name, self._strategy.earlier(site, planned.round)) for site, name in ahead)

    # -- the end of a stage, a round, the run ---------------------------------------------------------------------

    def _end_stage(self, planned: ScheduledRound, grid: Grid, scores: Scores) -> None:
        """R matrix row, site scores, adapter on disk, consolidation for the next stage."""
        strategy, state = self._strategy, self._state
        self.recorder.stage(planned, scores)
        if self._config.sites.held_out:
            able = self._quarantine.able(planned.round, connected(state.nodes) - set(self._config.sites.excluded))
            bound = self._scorer.main.bound
            site_scores = scores_of_sites(grid, self._config, strategy, self._book, planned, state.serving, able, bound)
            self.recorder.sites(planned, site_scores, state.nodes)
        if state.summed:
            self.recorder.adapter(self._run.stage_adapter(planned.stage, planned.stage_name), planned)
        view = self._view(planned)
        if view.last and planned.round < len(strategy.rounds):
            self._close(view)
        else:
            state.open_end = view.last

    def _close(self, view: View) -> None:
        """What the next stage starts from."""
        state = self._state
        state.open_end = False
        state.current = self._sound(self._guards.on_stage_end(view, state.current, state.serving))
        if self._guards.start_new_pairs or self._strategy.rule.direct:
            self._strategy.rule.load_state({})  # the moments are of the old pair, or of the stage that has ended

    def _reopen(self) -> None:
        """Where the run was extended: the stage that was its last one goes on, or has ended and another one follows."""
        state, rounds = self._state, self._strategy.rounds
        if not state.open_end or state.round >= len(rounds):
            return
        self._before = state.current
        if rounds[state.round].last:
            self._close(self._view(rounds[state.round]))
        state.open_end = False

    def _view(self, planned: ScheduledRound) -> View:
        """What guards may look at in this round."""
        return view_of(self._config, self._work, self._scorer, planned, self._before, self._state.ended)

    def _keep(self, planned: ScheduledRound) -> None:
        self._state.round = planned.round
        self.save()

    def save(self) -> None:
        """Write the state of the run: every part of it, in one loop."""
        save_state(self._run.state, self._state.round, self.parts.stateful)
