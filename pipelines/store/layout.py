"""Names of everything in a store.

    <store>/
        mlflow.db                           MLflow's database, unless --tracking-uri names another
        mlflow-users.db  mlflow-users.ini   the login to MLflow's page (genpipe browse --auth)
        artifacts/                          MLflow's files
        features/                           cached feature spaces, by digest of their data
        runs/<name>/                        a run of `genpipe train`: a run folder
        searches/<search id>/               a search: a run folder, and
            trials/<trial id>/              a run folder for each trial
            tune/                           Ray Tune's own state
            carried.json                    trials that ended before Tune's state was lost
            execution/<digest>.json         how trials of a structure are trained, fused
            workers/<session>/              what fused workers train just now
            usage.json                      the time that the search has used
            trials.csv  report.html  champion.png
        report.html                         a page of several searches (genpipe report)
        evaluations/<run id>/               evaluations of a run on the test split
        jobs/<name>/                        a job (genpipe run): job.yaml, lease/, and
            stages/<stage>.json             how far a stage is; <stage>.result.json

A run folder holds `config.json` (`pipelines.config.serialization`), `journal/`
(`pipelines.store.journal`), `checkpoint_000012/` (`pipelines.store.checkpoints`), `marker`
(`pipelines.store.marker`) and `samples.png`; that of a run or a search also `lease/`
(`pipelines.store.lease`), `job.yaml` (`pipelines.config.job_text`) and, once somebody has asked it
to end, `stop.json` (`pipelines.store.stop_request`).
"""

from __future__ import annotations

import os
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from gen_models.core.errors import require
from pipelines.store.files import LOCAL, Files
from pipelines.store.journal import EvaluationJournal, Journal
from pipelines.store.secrets import require_no_secret

_LOCK_SECONDS = 300.0

_NAME_BYTES = 200
"""Longest name of a run or a search: file systems take 255 bytes, and names are added to."""
_PART_BYTES, _PATH_BYTES = 255, 3000


def require_name(field: str, name: str) -> str:
    """Return a name that a folder in a store may have. Raises `InputError` if it would leave the
    store, or be a name that no file system or no table takes."""
    require(isinstance(name, str), field, name, "a text")  # from Python it may be anything
    printable = name.isprintable() and "/" not in name and name not in ("", ".", "..")
    expected = (
        f"a name of at most {_NAME_BYTES} bytes without a slash and without control characters, "
        "because it names a folder"
    )
    fits = printable and len(name.encode()) <= _NAME_BYTES
    require(fits, field, name, expected)
    require_no_secret(field, name)
    return name


@dataclass(frozen=True)
class RunFolder:
    """The folder of one run."""

    path: Path
    files: Files = field(default=LOCAL, compare=False)

    @property
    def name(self) -> str:
        return self.path.name

    @cached_property
    def journal(self) -> Journal:
        return Journal(self.path, self.files)

    @property
    def config(self) -> Path:
        """The run's config, with its format number."""
        return self.path / "config.json"

    @property
    def job(self) -> Path:
        """The job file that does again what was done here."""
        return self.path / "job.yaml"

    @property
    def marker(self) -> Path:
        """By which a node tells whether it sees this folder (`pipelines.store.marker`)."""
        return self.path / "marker"

    @property
    def leases(self) -> Path:
        """Which commands have trained the run, or run the search, and which one does now."""
        return self.path / "lease"

    @property
    def stop_request(self) -> Path:
        """Who has asked the run or the search to end, and when."""
        return self.path / "stop.json"

    @property
    def schedules(self) -> Path:
        """Of a trial whose settings changed: what led to its state, for each epoch."""
        return self.path / "schedules.json"

    @property
    def samples(self) -> Path:
        """Samples of the best checkpoint."""
        return self.path / "samples.png"

    def samples_at(self, epoch: int) -> Path:
        """Samples of the checkpoint of an epoch, of a trial."""
        return self.path / f"samples_{epoch:06d}.png"


@dataclass(frozen=True)
class SearchFolder(RunFolder):
    """The folder of a search, or of a seed study."""

    @classmethod
    def at(cls, path: str | Path) -> SearchFolder:
        """Return the folder at a path."""
        return cls(Path(path))

    @property
    def tune(self) -> Path:
        """Ray Tune's state."""
        return self.path / "tune"

    @property
    def damaged_tune(self) -> Path:
        """Ray Tune's state that could not be read, after which it has begun anew."""
        return self.path / "tune.damaged"

    @property
    def carried(self) -> Path:
        """The trials that had ended when Tune began anew, which it does not know."""
        return self.path / "carried.json"

    @property
    def given(self) -> Path:
        """Points that were given for the search to try, a file each."""
        return self.path / "given"

    @property
    def execution(self) -> Path:
        """What was chosen of how the trials of each structure are trained, fused."""
        return self.path / "execution"

    @property
    def workers(self) -> Path:
        """What the fused workers train just now, a folder for each process of the search."""
        return self.path / "workers"

    @property
    def usage(self) -> Path:
        """The time that the search has used, over all resumptions, and what has ended it."""
        return self.path / "usage.json"

    @property
    def legacy_config(self) -> Path:
        """The search's config as versions before format 1 wrote it."""
        return self.path / "search.json"

    @property
    def table(self) -> Path:
        return self.path / "trials.csv"

    @property
    def report(self) -> Path:
        return self.path / "report.html"

    @property
    def champion_samples(self) -> Path:
        """Samples of the champion."""
        return self.path / "champion.png"

    @property
    def best_samples(self) -> Path:
        """A folder with samples of the best trials, in files whose names say which."""
        return self.path / "best"

    def trial(self, trial_id: str) -> RunFolder:
        """Return the folder of a trial, which may not exist yet."""
        return RunFolder(self.path / "trials" / trial_id, self.files)

    def trials(self) -> list[RunFolder]:
        """Return the folders of the trials that have a journal, by name."""
        journals = self.files.list(self.path, "trials/*/journal")
        return [RunFolder(path.parent, self.files) for path in journals]

    def study(self, trial_id: str, seeds: int) -> SearchFolder:
        """Return the folder of the seed study of one of this search's trials."""
        name = f"{self.name}-{trial_id}-{seeds}-seeds"
        return SearchFolder(self.path.with_name(name), self.files)


@dataclass(frozen=True)
class JobFolder(RunFolder):
    """The folder of a job: what it was started with, and how far its stages are."""

    def stage(self, name: str) -> Path:
        """How far a stage is."""
        return self.path / "stages" / f"{name}.json"

    def result(self, name: str) -> Path:
        """The result of a stage that has ended."""
        return self.path / "stages" / f"{name}.result.json"

    def stages(self) -> list[str]:
        """Return the names of the stages that have begun."""
        found = self.files.list(self.path / "stages", "*.json")
        return [path.stem for path in found if not path.stem.endswith(".result")]


STORE_VARIABLE = "GENPIPE_STORE"
"""Environment variable with the folder of all results."""


def default_store() -> Path:
    """Return the folder of all results where none is given: the environment's GENPIPE_STORE, or
    `runs`."""
    return Path(os.environ.get(STORE_VARIABLE) or "runs")


@dataclass(frozen=True)
class Store:
    """A folder with everything that was trained and recorded."""

    root: Path
    files: Files = field(default=LOCAL, compare=False)

    @classmethod
    def at(cls, path: str | Path | None = None) -> Store:
        """Return the store at a path, by default that of `default_store`; it may not exist yet.
        Raises `InputError` at a path that no file system takes."""
        path = default_store() if path is None else path
        require(isinstance(path, (str, Path)), "store", path, "a path")
        root = Path(path).expanduser().absolute()
        longest = max(len(os.fsencode(part)) for part in root.parts)
        fits = longest <= _PART_BYTES and len(os.fsencode(root)) <= _PATH_BYTES
        most = f"{_PART_BYTES} bytes a name and {_PATH_BYTES} in all"
        require(fits and "\0" not in str(root), "store", str(path), f"a path of at most {most}")
        require_no_secret("store", str(root))
        return cls(root)

    @property
    def database(self) -> Path:
        """MLflow's database."""
        return self.root / "mlflow.db"

    @property
    def users(self) -> Path:
        """Database of those who may see MLflow's page: names, and hashes of passwords."""
        return self.root / "mlflow-users.db"

    @property
    def user_settings(self) -> Path:
        """Settings of the login to MLflow's page."""
        return self.root / "mlflow-users.ini"

    @property
    def artifacts(self) -> Path:
        """MLflow's files."""
        return self.root / "artifacts"

    @property
    def features(self) -> Path:
        """Cached feature spaces."""
        return self.root / "features"

    @property
    def searches(self) -> Path:
        return self.root / "searches"

    @property
    def report(self) -> Path:
        """The page of several searches side by side."""
        return self.root / "report.html"

    def claiming_alias(self) -> AbstractContextManager[None]:
        """Hold the right to move an alias of a registered model for the block, as one process at a
        time may."""
        return self.files.lock(self.root / ".alias.lock", _LOCK_SECONDS)

    def run(self, name: str) -> RunFolder:
        return RunFolder(self.root / "runs" / require_name("name", name), self.files)

    def search(self, search_id: str) -> SearchFolder:
        return SearchFolder(self.searches / require_name("search_id", search_id), self.files)

    def job(self, name: str) -> JobFolder:
        return JobFolder(self.root / "jobs" / require_name("job", name), self.files)

    def search_ids(self) -> list[str]:
        """Return the ids of the searches that have begun, and have a config."""
        found = {
            path.parent.name
            for name in ("config.json", "search.json")
            for path in self.files.list(self.searches, f"*/{name}")
        }
        return sorted(found)

    def evaluation(self, run_id: str) -> EvaluationJournal:
        """Return the journal of a run's evaluation, which may not exist yet."""
        folder = self.root / "evaluations" / require_name("run_id", run_id)
        return EvaluationJournal(folder, self.files)

    def evaluations(self) -> list[EvaluationJournal]:
        """Return the journals of all evaluations."""
        paths = self.files.list(self.root, "evaluations/*/evaluation.json")
        return [EvaluationJournal(path.parent, self.files) for path in paths]

    def journals(self) -> list[Journal]:
        """Return the journals of all runs, searches and trials."""
        return self._journals("identity.json")

    def delivered_journals(self) -> list[Journal]:
        """Return the journals of which something was delivered to a tracking system."""
        return self._journals("delivered.json")

    def ended_journals(self) -> list[Journal]:
        """Return the journals of all runs, searches and trials that have ended, in the order in
        which they ended: trials before their search, which names them; an earlier version of a
        model before the next."""
        return sorted(self._journals("outcome.json"), key=Journal.ended_ms)

    def open_journals(self) -> list[Journal]:
        """Return the journals of all runs, searches and trials that have started and not ended."""
        ended = {journal.run_folder for journal in self.ended_journals()}
        return [each for each in self.journals() if each.run_folder not in ended]

    def leased_folder(self, journal: Journal) -> RunFolder:
        """Return the folder with the lease of a run: of a trial that of its search."""
        folder = journal.run_folder
        is_trial = folder.parent.name == "trials"
        return RunFolder(folder.parents[1] if is_trial else folder, self.files)

    def _journals(self, file: str) -> list[Journal]:
        """Return the journals that hold a file. Only folders of runs are looked into: those of
        MLflow hold a hundred files for each run."""
        folders = ("runs/*", "searches/*/trials/*", "searches/*")
        return [
            Journal(path.parent.parent, self.files)
            for folder in folders
            for path in self.files.list(self.root, f"{folder}/journal/{file}")
        ]
