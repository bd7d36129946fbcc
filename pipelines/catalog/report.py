"""The page of recorded searches, at any time."""

from __future__ import annotations

from pathlib import Path

from gen_models.core.errors import InputError, require
from pipelines.config.serialization import recorded_search
from pipelines.report.console import ensure_logging
from pipelines.report.contents import SearchContents, read_contents
from pipelines.report.html import render
from pipelines.report.results import ReportedSearch, ReportResult
from pipelines.store.layout import Store


def report(
    *searches: str, store: str | Path | None = None, output: str | Path | None = None
) -> ReportResult:
    """Write the page of a search, or of several side by side, from their journals: also while they
    run, and of those that were interrupted.

    Without `output`, the page of one search is `report.html` in its folder, and that of several
    `report.html` in the store. Nothing else is written. Raises `InputError` if there is no such
    search, or if the page cannot be written there.

    >>> import genpipe
    >>> genpipe.report("vae-digits-2f6c1a", store="runs").path
    """
    ensure_logging()
    place = Store.at(store)
    known = ", ".join(place.search_ids()) or "there is none"
    expected = f"one search or more of {place.searches}: {known}"
    require(bool(searches), "searches", " ".join(searches), expected)
    twice = next((each for each in searches if searches.count(each) > 1), "")
    require(not twice, "searches", twice, "each search once")
    runs = {name: recorded_search(place, name, "searches") for name in searches}
    path = _output(place, searches, output)
    contents = []
    for name, run in runs.items():
        folder = place.search(name)
        started = folder.journal.has_started
        require(started, "searches", name, "a search that has begun to record")
        contents.append(read_contents(folder, run))
    page = render(contents)
    try:
        place.files.write(path, page)
    except (FileExistsError, NotADirectoryError, PermissionError) as error:
        raise InputError(f"output = {str(path)!r}: expected a file to write: {error}") from error
    return ReportResult(path=str(path), searches=tuple(map(_summary, contents)))


def _output(store: Store, searches: tuple[str, ...], output: str | Path | None) -> Path:
    """Return where the page is written."""
    if output is None:
        return store.search(searches[0]).report if len(searches) == 1 else store.report
    path = Path(output).expanduser().absolute()
    require(not path.is_dir(), "output", str(output), "the path of a file, which is no folder")
    return path


def _summary(contents: SearchContents) -> ReportedSearch:
    winner, outcome = contents.selection.winner, contents.folder.journal.outcome()
    ending = outcome.ending if outcome else None
    best = winner.best if winner else None
    found = contents.importances.get(contents.objective)
    return ReportedSearch(
        search_id=contents.name,
        outcome="interrupted" if contents.state == "interrupted" else ending,
        trials=len(contents.trained),
        metric=contents.objective.metric,
        mode=contents.objective.mode,
        best_trial=winner.trial_id if winner and best else None,
        value=best.value if best else None,
        config=dict(winner.config) if winner and best else {},
        edges=contents.edges,
        importance={each.name: each.share for each in found.settings} if found else {},
        importance_trials=found.trials if found else 0,
        device_hours=contents.device_hours,
        epochs=contents.num_epochs,
        saved_epochs=contents.saved_epochs,
    )
