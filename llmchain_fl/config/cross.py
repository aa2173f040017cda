"""Settings that are right one by one and wrong together."""

from __future__ import annotations

from llmchain_fl.config.schema import RunConfig
from llmchain_fl.config.stream_faults import stream_faults
from llmchain_fl.continual.server_guard_faults import gate_faults, merge_faults
from llmchain_fl.continual.site_guard_faults import site_guard_faults
from llmchain_fl.continual.slot_faults import slot_faults


def cross_faults(run: RunConfig) -> list[str]:
    """Faults that no single value shows."""
    sites, weights, privacy, guards = run.sites, run.aggregation.weights, run.privacy, run.continual.guards
    checks: list[tuple[bool, str]] = [
        (sites.cohort > sites.count, f"sites.cohort = {sites.cohort} is more than sites.count = {sites.count}"),
        (sites.minimum > (sites.cohort or sites.count),
         f"sites.minimum = {sites.minimum} is more than the sites asked in a round"),
        (sites.partition in ("column", "natural") and not sites.column,
         f'sites.partition = "{sites.partition}" needs sites.column'),
        (bool(weights) and len(weights) != sites.count,
         f"aggregation.weights has {len(weights)} values for sites.count = {sites.count}"),
        *((bool(values) and len(values) != sites.count,
           f"adapter.{name} has {len(values)} values for sites.count = {sites.count}")
          for name, values in (("site_ranks", run.adapter.site_ranks), ("site_alphas", run.adapter.site_alphas))),
        (privacy.enabled and not privacy.epsilon and not privacy.noise_multiplier,
         "privacy.enabled needs privacy.epsilon (a budget) or privacy.noise_multiplier"),
        (privacy.enabled and privacy.unit == "site" and bool(weights),
         "aggregation.weights must be empty with privacy.unit = \"site\": the noise covers equal weights only"),
        (privacy.enabled and privacy.unit != "person" and privacy.stages == "disjoint",
         "privacy.stages = \"disjoint\" needs privacy.unit = \"person\": only persons can be told apart"),
        (privacy.enabled and privacy.unit == "site" and sites.minimum < min(2, sites.count),
         "sites.minimum must be 2 or more with privacy.unit = \"site\": the noise is made for so many sites"),
        (privacy.enabled and run.data.one_record_per_person and privacy.stages == "disjoint",
         "privacy.stages = \"disjoint\" needs records that name persons, so not data.one_record_per_person"),
        (privacy.clip_quantile > 0 and privacy.unit != "site",
         "privacy.clip_quantile needs privacy.unit = \"site\": persons' norms never leave a site"),
        (run.data.one_record_per_person and run.data.made_up_persons > 0,
         "data.one_record_per_person and data.made_up_persons contradict each other"),
        (run.task.kind == "classification" and not run.task.labels,
         "task.labels is empty: classification needs a public label list (never collected from the sites)"),
        (len({s.name for s in run.stage}) != len(run.stage), "two stages have the same name"),
        (len(set(guards)) != len(guards), "continual.guards names a guard twice"),
    ]  # fmt: skip
    faults = [text for wrong, text in checks if wrong]
    for stage in run.stage:
        if not (stage.train or run.data.train):
            faults.append(f'stage "{stage.name}" has no training records: set data.train or the stage\'s train')
    return faults + dev_faults(run) + stream_faults(run) + guard_faults(run)


def dev_faults(run: RunConfig) -> list[str]:
    """Stages without dev records where others have some: after a round either all stages are scored on dev, or none."""
    if run.data.dev or not any(stage.dev for stage in run.stage):
        return []
    return [
        f'stage "{stage.name}" has no dev records, but others have: set data.dev or the stage\'s dev'
        for stage in run.stage
        if not stage.dev
    ]


def guard_faults(run: RunConfig) -> list[str]:
    """Guards that do not go with the rule, with each other, or with what public records there are."""
    told, rule, play = run.continual, run.aggregation.rule, run.stream.play
    settings = told.model_dump(exclude={"guards"})
    public = bool(told.public) or all(stage.public for stage in run.stage)
    faults = site_guard_faults(rule, told.guards, public, settings, play)
    faults += slot_faults(rule, told.guards, told.slots_share, public, play)
    if told.public and not told.public_stages and not all(stage.public for stage in run.stage):
        labelled = told.replay_data == "public" and run.task.kind != "plain-text"
        needy = ("agem", "route", "slots", *(("replay",) if labelled else ()))
        named = [name for name in told.guards if name in needy]
        faults += [f'guard "{n}" needs public records of each stage: continual.public_stages = false' for n in named]
    if "distill" in told.guards and run.aggregation.personal_head:
        faults.append(
            'guard "distill" needs a teacher that all share: aggregation.personal_head keeps each head at its site'
        )
    if "replay" in told.guards and told.replay_data == "generated" and run.task.kind != "plain-text":
        faults.append(f'continual.replay_data = "generated" needs task.kind = "plain-text", not "{run.task.kind}"')
    faults += merge_faults(rule, run.aggregation.optimizer, told.guards, settings, play)
    if "gate" in told.guards:
        dev = {stage.name: stage.dev or run.data.dev for stage in run.stage}
        probed = [name for name, source in dev.items() if source]
        tests = {run.data.test, *(stage.test for stage in run.stage)}
        apart = bool(probed) and not tests & set(dev.values())
        faults += gate_faults([stage.name for stage in run.stage], probed, kept_apart=apart, play=play)
    return faults
