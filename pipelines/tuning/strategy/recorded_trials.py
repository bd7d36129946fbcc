"""The trials that a store holds of a search, as those who search on need them."""

from __future__ import annotations

from pipelines.config.run import Run
from pipelines.config.search import Search
from pipelines.config.serialization import config_from_params, load_config
from pipelines.store.journal import RunInfo
from pipelines.store.layout import RunFolder, SearchFolder
from pipelines.store.scan import JournalCache
from pipelines.tuning.strategy.searchers import RecordedTrial
from pipelines.tuning.strategy.space import default_point


def recorded_trials(
    run: Search, folder: SearchFolder, of: Search | None = None
) -> list[RecordedTrial]:
    """Return the trials that the journals of a search hold, but for superseded ones, with their
    values of the settings that `run` searches.

    One that completed fewer epochs than its search gives its trials has not ended: it was given
    more since. `of`: the search, if it is another one than `run`.
    """
    epochs = (of or run).epochs
    searched, found = run.searched, []
    metrics = [objective.metric for objective in run.objectives]
    for record in JournalCache().read_trials(folder):
        info, outcome = record.info, record.outcome
        ending = outcome.ending if outcome else "interrupted"
        if info is None or ending == "superseded":
            continue
        point = default_point(_config(record.folder, info), searched)
        counted = record.counted()
        is_short = ending == "completed" and record.last_epoch < epochs
        found.append(
            RecordedTrial(
                trial_id=info.trial_id,
                params={name: info.params[name] for name in point},
                point=point,
                has_ended=ending in ("completed", "stopped_early", "diverged") and not is_short,
                curve=[
                    (each.epoch, {m: each.metrics[m] for m in metrics if m in each.metrics})
                    for each in counted
                ],
                diverged=ending == "diverged",
            )
        )
    return found


def _config(folder: RunFolder, info: RunInfo) -> Run:
    """Return the config with which a trial started. Version 0.1 recorded its parameters alone."""
    if folder.files.exists(folder.config):
        return load_config(folder.files.read(folder.config), str(folder.config))
    return config_from_params(info.params, info.tags)
