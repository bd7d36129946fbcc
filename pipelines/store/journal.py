"""The journal of a run: everything that is recorded of it, on disk before anything is delivered.

The process that trains a run (rank 0, or the fused worker) writes one file per epoch into the
run's folder; the process of a search writes one into the search's folder each time that a trial
ends (`pipelines.tuning.search_curve`). The tracker (`pipelines.tracking`) delivers the journal to
MLflow. So an outage, a kill or a restart can delay what MLflow shows, but loses no point and logs
none twice: an epoch that is trained again overwrites its own file with the same content.

A file that is empty, cut short or garbled raises `DamagedError`, which names it. `JournalCache`
(`pipelines.store.scan`) sets such a run aside, and training that resumes goes back to the last
epoch before the damage.

    <run folder>/journal/
        identity.json               `RunInfo`: written once, when the run starts
        reports/000005.json         epoch 5: {"epoch": 5, "metrics": {…}, "pictures": ["samples"],
                                    "context": `EpochContext`}
        reports/000005.samples.png
        reports/000000.samples.png  of the untrained networks; written with the first picture
        labels.json                 `Labels`: replaced when a run is resumed with others
        outcome.json                `Outcome`; absent while the run is going on
        delivered.json              what the tracker has delivered; written by the tracker alone
        delivery.lock               held by the process that delivers the journal
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, TypeGuard, TypeVar, get_args

from gen_models.core.errors import DamagedError, shown
from pipelines.store.files import LOCAL, Files
from pipelines.store.secrets import redacted

IDENTITY, OUTCOME, _DELIVERED = "identity.json", "outcome.json", "delivered.json"
_LABELS = "labels.json"
_MAX_BYTES = 16 << 20
"""Of a file of a journal; an epoch has some 1,000, and a long schedule some 100,000."""
_LOCK, _LOCK_SECONDS = "delivery.lock", 300.0

RunStatus = Literal[
    "completed", "stopped_early", "diverged", "failed", "interrupted", "superseded"
]
"""How a run ended. `superseded`: the search was killed before Tune had saved the trial, so that
its config was tried again under another trial id."""

RunKind = Literal["run", "search", "confirmation", "trial"]
"""`confirmation` is a seed study: a search over the seed of one recorded config."""


@dataclass(frozen=True)
class RunInfo:
    """What is known of a run before its first epoch; the tracker creates MLflow's run from it."""

    name: str
    """The run's name in MLflow."""
    experiment: str
    """MLflow experiment, `<family>-<data>`."""
    kind: RunKind
    search_id: str = ""
    """The search that this run is, or is a trial of."""
    trial_id: str = ""
    parent: str = ""
    """Of a trial: the folder of its search, relative to the trial's own folder."""
    params: Mapping[str, str | int | float | bool] = field(default_factory=dict)
    """The config, flat: `{"model.latent_dim": 16, …}`."""
    tags: Mapping[str, str] = field(default_factory=dict)
    """Provenance: seed, git commit, versions, the command that trains the config again."""
    dataset: Mapping[str, Any] = field(default_factory=dict)
    """`{"name", "digest", "shape": [C, H, W] or [2], "num_train", "num_validation"}`."""
    label: str = ""
    """What the tracker's pages call the run, if not by its name: `ld4 kl0.76 lr4e-3`."""
    shown: Sequence[str] = field(default_factory=list)
    """Names of the params that the tracker's pages show, the others being one tag: what is
    searched, and what departs from the default. Empty: all, as older versions recorded."""
    key: str = field(default_factory=lambda: uuid.uuid4().hex)
    """Unique. MLflow's run is found by it, because MLflow chooses the ids of its runs itself."""


@dataclass(frozen=True)
class Labels:
    """How a person labels a run where it is recorded. Trials have the tags of their search."""

    tags: Mapping[str, str] = field(default_factory=dict)
    """Tags in MLflow, beside those that the run has anyway."""
    note: str = ""
    """Markdown, at the head of the run's description."""

    def as_content(self) -> dict[str, Any]:
        """Return what is given as plain values; {} if nothing is."""
        return {name: value for name, value in asdict(self).items() if value}


@dataclass(frozen=True)
class Outcome:
    """How a run ended."""

    ending: RunStatus
    last_epoch: int
    """The last epoch that counts. Later ones are not delivered: a worker may have trained an epoch
    more before it learns that its trial was stopped. Of a search: the last end of a trial."""
    summary: Mapping[str, float] = field(default_factory=dict)
    """Metrics of the whole run, such as `best/val/elbo` and `wall_seconds`; they have no step."""
    tags: Mapping[str, str] = field(default_factory=dict)
    """Tags known at the end, such as `best_epoch`, `checkpoint`, `message`."""
    artifacts: Mapping[str, str] = field(default_factory=dict)
    """Files to upload: artifact folder in MLflow -> path of a file or folder, relative to the
    run's folder. An older version wrote absolute ones."""
    checkpoint: str = ""
    """The checkpoint folder to log as a model, relative to the run's folder, or "" for none."""
    register: str = ""
    """The registered model that it becomes a version of, or "" for none."""
    champion: Mapping[str, str | float] = field(default_factory=dict)
    """`{"metric": "val/elbo", "mode": "max", "value": -20.1}`: claim the alias `champion`, unless
    the version that holds it is ranked by the same metric on the same data and is better. With
    `"seeds": 50` if the value is the mean over as many seeds."""


SCHEDULES = "training"
"""Artifact folder of `pipelines.store.layout.RunFolder.schedules`."""


@dataclass(frozen=True)
class Segment:
    """Epochs that were trained with the same settings, one after the other."""

    epochs: int
    settings: Mapping[str, Any]
    """The searched settings, flat: `{"optim.lr": 0.001, …}`."""
    trial_id: str = ""
    """The trial that trained them."""


Schedule = tuple[Segment, ...]
"""Everything that led to a state, from the first weights on, whichever trial had trained it."""


def schedule_from(content: Sequence[Mapping[str, Any]]) -> Schedule:
    """Return the schedule that was written as plain values, with `asdict` of each segment."""
    return tuple(Segment(**each) for each in content)


@dataclass(frozen=True)
class EpochContext:
    """How an epoch was trained, as far as its last digits depend on it; of a record of a search,
    what it counts."""

    execution: str = ""
    """Of a fused trial: `vectorised` or `in_turn`."""
    widest: Mapping[str, int] = field(default_factory=dict)
    """Of a vectorised trial: the widths to which it was padded, if the search has wider ones."""
    device: str = ""
    """`cpu` or `cuda`."""
    processor: str = ""
    """The name of the processor or GPU, and the instructions that torch uses of it."""
    weights: str = ""
    """Digest of the networks' weights after the epoch."""
    schedule: Schedule = ()
    """Of a trial of population based training: what led to its state. Empty where the settings
    never change."""
    divergence: str = ""
    """Of an epoch that diverged: what was not a finite number."""
    ended_trial: str = ""
    """Of a record of a search: the trial whose end it counts, and how it ended."""

    def as_content(self) -> dict[str, Any]:
        """Return what is known as plain values."""
        return {name: value for name, value in asdict(self).items() if value}

    @classmethod
    def from_content(cls, content: Mapping[str, Any]) -> EpochContext:
        """Return what `as_content` returned; of an epoch of an older version nothing is known."""
        return cls(**{**content, "schedule": schedule_from(content.get("schedule", ()))})


@dataclass(frozen=True)
class EpochRecord:
    """One epoch of a run: finite metrics, and the pictures drawn at it, by key. Of a search the
    epochs are the ends of its trials, counted."""

    epoch: int
    metrics: Mapping[str, float]
    pictures: Mapping[str, Path]
    context: EpochContext = field(default_factory=EpochContext)


class Journal:
    """The journal in one run's folder. It keeps nothing in memory and holds no file open."""

    def __init__(self, run_folder: str | Path, files: Files = LOCAL) -> None:
        self.run_folder = Path(run_folder)
        self.files = files
        self.folder = self.run_folder / "journal"
        self.records_folder = self.folder / "reports"

    # -- the run ------------------------------------------------------------------------------
    def open(self, info: RunInfo) -> RunInfo:
        """Record that the run starts or goes on, and remove its outcome. Returns the run's info:
        what an earlier start wrote, or else `info`."""
        self.files.remove(self.outcome_file)
        try:
            known = self.info()
        except DamagedError:  # with the old key, the tracker goes on with the same run
            known, info = None, replace(info, key=self.delivered().get("key", info.key))
        if known is None:
            self._write(self.folder / IDENTITY, asdict(info))
        return known or info

    @property
    def has_started(self) -> bool:
        """Whether the run ever started, though its info may be damaged."""
        return self.files.exists(self.folder / IDENTITY)

    def info(self) -> RunInfo | None:
        """Return the run's info, or None if it never started."""
        return parsed(RunInfo, self.files, self.folder / IDENTITY)

    def label(self, labels: Labels) -> None:
        """Record how a person labels the run, in place of what was recorded before."""
        content = redacted(labels.as_content())
        if not content:
            self.files.remove(self.folder / _LABELS)
        elif content != _undamaged(self.files, self.folder / _LABELS):
            self._write(self.folder / _LABELS, content)

    def labels(self) -> Labels:
        """Return how a person labels the run; of a trial the tags of its search. A damaged file
        holds up nothing: it counts as no labels."""
        with suppress(DamagedError):
            if (info := self.info()) and info.parent:
                search = Journal(self.run_folder / info.parent, self.files)
                return Labels(tags=search.labels().tags)
            return parsed(Labels, self.files, self.folder / _LABELS) or Labels()
        return Labels()

    def required_info(self) -> RunInfo:
        """Return the info of a run that has started. Raises `DamagedError` if it is missing."""
        if info := self.info():
            return info
        raise DamagedError(f"{self.folder / IDENTITY}: missing")

    def started_ms(self) -> int:
        """Return when the run first started, in milliseconds since 1970."""
        return self.files.modified_ms(self.folder / IDENTITY)

    # -- epochs -------------------------------------------------------------------------------
    def write_epoch(
        self,
        epoch: int,
        metrics: Mapping[str, float],
        pictures: Mapping[str, bytes],
        context: EpochContext | None = None,
    ) -> None:
        """Record an epoch. `pictures` are PNG files by key. The JSON file is written last: an
        epoch without it does not count."""
        for key, png in pictures.items():
            self.files.write(self._picture(epoch, key), png)
        content = {"epoch": epoch, "metrics": dict(metrics), "pictures": sorted(pictures)}
        known = context.as_content() if context else {}
        self._write(self.record_file(epoch), content | ({"context": known} if known else {}))

    def write_start(self, pictures: Mapping[str, bytes]) -> None:
        """Record pictures of the networks before their first epoch, PNG files by key. They belong
        to no epoch, but a record with pictures is written after them."""
        for key, png in pictures.items():
            self.files.write(self._picture(0, key), png)

    def start(self) -> EpochRecord:
        """Return the pictures of the networks before their first epoch, as those of an epoch 0;
        there are none before an epoch has any, nor of a run of an older version."""
        found = self.files.list(self.records_folder, f"{0:06d}.*.png")
        keys = (path.name.removeprefix(f"{0:06d}.").removesuffix(".png") for path in found)
        return EpochRecord(0, {}, dict(zip(keys, found, strict=True)))

    def record_file(self, epoch: int) -> Path:
        """Return the file of an epoch."""
        return self.records_folder / f"{epoch:06d}.json"

    def recorded_ms(self, epoch: int) -> int:
        """Return when an epoch was recorded, in milliseconds since 1970."""
        return self.files.modified_ms(self.record_file(epoch))

    def epochs(self) -> list[int]:
        """Return the recorded epochs, ascending."""
        return sorted(int(p.stem) for p in self.files.list(self.records_folder, "[0-9]*.json"))

    def record(self, epoch: int) -> EpochRecord:
        """Return the record of an epoch. Raises `FileNotFoundError` if there is none."""
        path = self.record_file(epoch)
        content = read_json(self.files, path)
        if not content:
            raise FileNotFoundError(path)
        metrics, keys = content.get("metrics"), content.get("pictures")
        if not (_is_metrics(metrics) and _is_names(keys)):
            raise DamagedError(f"{path}: damaged: expected the metrics and pictures of an epoch")
        try:
            context = EpochContext.from_content(content.get("context", {}))
        except (TypeError, ValueError) as error:
            raise DamagedError(f"{path}: damaged: {shown(str(error))}") from error
        return EpochRecord(
            epoch, metrics, {key: self._picture(epoch, key) for key in keys}, context
        )

    def records(self, after: int = 0, upto: int | None = None) -> Iterator[EpochRecord]:
        """Iterate over the records of the epochs in (after, upto], in order. Raises `DamagedError`
        at one that is damaged, and at one that is missing before another."""
        expected = max(after, 0) + 1
        for epoch in self.epochs():
            if epoch > after and (upto is None or epoch <= upto):
                if epoch != expected:
                    path = self.record_file(expected)
                    raise DamagedError(f"{path}: missing, though later epochs are recorded")
                yield self.record(epoch)
                expected += 1

    def last(self) -> EpochRecord | None:
        """Return the record of the latest epoch that is not damaged, or None before the first."""
        for epoch in reversed(self.epochs()):
            with suppress(DamagedError):
                return self.record(epoch)
        return None

    def whole_records(self) -> Iterator[EpochRecord]:
        """Iterate over the records from the first epoch on, up to one that is missing or
        damaged."""
        recorded, epoch = set(self.epochs()), 1
        while epoch in recorded:
            try:
                yield self.record(epoch)
            except DamagedError:
                return
            epoch += 1

    def whole_until(self) -> int:
        """Return the last epoch of `whole_records`; 0 if there is none."""
        return max((record.epoch for record in self.whole_records()), default=0)

    def _picture(self, epoch: int, key: str) -> Path:
        return self.records_folder / f"{epoch:06d}.{key}.png"

    # -- the end ------------------------------------------------------------------------------
    @property
    def outcome_file(self) -> Path:
        return self.folder / OUTCOME

    def close(self, outcome: Outcome) -> None:
        """Record how the run ended."""
        self._write(self.outcome_file, asdict(outcome))

    def outcome(self) -> Outcome | None:
        """Return how the run ended, or None while it is going on."""
        return parsed(Outcome, self.files, self.outcome_file)

    # -- delivery -----------------------------------------------------------------------------
    def mark_delivered(self, content: Mapping[str, Any]) -> None:
        """Record what the tracker at `content["uri"]` holds of this run. What was recorded of
        other trackers stays."""
        known = self.deliveries()
        known.pop(str(content.get("uri")), None)
        elsewhere = {"elsewhere": list(known.values())} if known else {}
        info = self.info()
        key = {"key": info.key} if info else {}  # should `identity.json` be damaged
        self._write(self.folder / _DELIVERED, {**key, **content, **elsewhere})

    def delivered(self, uri: str | None = None) -> dict[str, Any]:
        """Return what `mark_delivered` wrote last, or wrote last of the tracker at `uri`; {} if
        nothing was delivered."""
        known = list(self.deliveries().values()) if uri is None else [self.deliveries().get(uri)]
        return (known and known[0]) or {}

    def deliveries(self) -> dict[str, dict[str, Any]]:
        """Return what `mark_delivered` wrote, by the tracker's URI, the latest first. Of a file
        that is damaged nothing: the tracker is asked what it holds, and it is written again."""
        latest = _undamaged(self.files, self.folder / _DELIVERED)
        if not latest:
            return {}
        elsewhere = latest.pop("elsewhere", [])
        known = [latest, *(elsewhere if isinstance(elsewhere, list) else [])]
        return {str(each.get("uri")): each for each in known if _is_delivery(each)}

    def ended_ms(self) -> int:
        """Return when the run ended, in milliseconds since 1970; 0 if it has begun again
        meanwhile."""
        try:
            return self.files.modified_ms(self.outcome_file)
        except FileNotFoundError:
            return 0

    def delivered_ms(self) -> int:
        """Return when something was last delivered, in milliseconds since 1970. Raises
        `FileNotFoundError` if nothing was."""
        return self.files.modified_ms(self.folder / _DELIVERED)

    def run_ids(self) -> list[str]:
        """Return every id that trackers have given the run: another one each time that it was
        recorded anew."""
        known = self.deliveries().values()
        ids = [each["run_id"] for each in known if "run_id" in each]
        ids += [earlier for each in known for earlier in each.get("previous_run_ids", [])]
        return sorted(set(ids))

    def delivering(self) -> AbstractContextManager[None]:
        """Hold the right to deliver this journal for the block, as one process at a time may.
        Raises `TimeoutError` if another process delivers it for minutes."""
        return self.files.lock(self.folder / _LOCK, _LOCK_SECONDS)

    def _write(self, path: Path, content: Mapping[str, Any]) -> None:
        self.files.write(path, as_json(content))


EVALUATED = "test/weights_digest"
"""Tag of an evaluation: digest of the weights that were evaluated."""


@dataclass(frozen=True)
class EvaluationRecord:
    """The results of an evaluation on the test split."""

    run_id: str
    """The tracker's id of the run that was evaluated."""
    metrics: Mapping[str, float]
    tags: Mapping[str, str]
    pictures: Mapping[str, Path]


class EvaluationJournal:
    """The evaluations of a run on the test split, in a folder of their own: the run may have been
    recorded on another machine, whose journal is not here."""

    def __init__(self, folder: str | Path, files: Files = LOCAL) -> None:
        self.folder = Path(folder)
        self.run_folder = self.folder
        self.files = files

    @property
    def record_file(self) -> Path:
        return self.folder / "evaluation.json"

    @property
    def marker(self) -> Path:
        """By which a node tells whether it sees this folder (`pipelines.store.marker`)."""
        return self.folder / "marker"

    def write(
        self,
        run_id: str,
        metrics: Mapping[str, float],
        tags: Mapping[str, str],
        pictures: Mapping[str, bytes],
    ) -> None:
        """Record an evaluation. What an earlier one of the same weights recorded under other
        names, such as of another number of samples, stays. `pictures`: PNG by key."""
        with self.delivering():
            for key, png in pictures.items():
                self.files.write(self.picture(key), png)
            before = self._earlier(run_id, tags.get(EVALUATED))
            content = {
                "run_id": run_id,
                "metrics": {**before.metrics, **metrics},
                "tags": {**before.tags, **tags},
                "pictures": sorted({*before.pictures, *pictures}),
                "key": uuid.uuid4().hex,  # tells two evaluations apart
            }
            self.files.write(self.record_file, as_json(content))

    def _earlier(self, run_id: str, weights: str | None) -> EvaluationRecord:
        """Return what is recorded of these weights: nothing if other ones were evaluated, or if
        the record is damaged."""
        with suppress(DamagedError):
            known = self.record()
            if known and known.tags.get(EVALUATED) == weights:
                return known
        return EvaluationRecord(run_id, {}, {}, {})

    def picture(self, key: str) -> Path:
        """Return the file of a picture."""
        return self.folder / f"{key}.png"

    def record(self) -> EvaluationRecord | None:
        """Return the evaluation, or None if there is none."""
        content = read_json(self.files, self.record_file)
        if not content:
            return None
        metrics, keys = content.get("metrics"), content.get("pictures")
        is_text = isinstance(content.get("run_id"), str) and isinstance(content.get("tags"), dict)
        if not (is_text and _is_metrics(metrics) and _is_names(keys)):
            raise DamagedError(f"{self.record_file}: damaged: expected an evaluation")
        pictures = {key: self.picture(key) for key in keys}
        return EvaluationRecord(content["run_id"], metrics, content["tags"], pictures)

    def recorded_ms(self) -> int:
        """Return when the evaluation was recorded, in milliseconds since 1970."""
        return self.files.modified_ms(self.record_file)

    def mark_delivered(self, uri: str) -> None:
        """Record that the tracker at `uri` holds the evaluation."""
        key = read_json(self.files, self.record_file).get("key")
        elsewhere = {other: known for other, known in self._deliveries().items() if other != uri}
        content = {"uri": uri, "key": key, "elsewhere": elsewhere}
        self.files.write(self.folder / _DELIVERED, as_json(content))

    def is_delivered(self, uri: str) -> bool:
        """Return whether the tracker at `uri` holds this evaluation."""
        known = self._deliveries()
        key = read_json(self.files, self.record_file).get("key")
        return uri in known and known[uri] == key

    def delivering(self) -> AbstractContextManager[None]:
        """Hold the right to deliver this evaluation, as `Journal.delivering`."""
        return self.files.lock(self.folder / _LOCK, _LOCK_SECONDS)

    def _deliveries(self) -> dict[str, str | None]:
        """Return the key of the evaluation that was delivered last, by the tracker's URI."""
        latest = _undamaged(self.files, self.folder / _DELIVERED)
        known: dict[str, str | None] = dict(latest.get("elsewhere", {}))
        return known | {latest["uri"]: latest["key"]} if latest else known


def as_json(content: Mapping[str, Any]) -> str:
    """Return JSON text as every file of a store has it: without secrets."""
    return json.dumps(redacted(dict(content)), indent=1, sort_keys=True) + "\n"


def read_json(files: Files, path: Path) -> dict[str, Any]:
    """Return the content of a JSON file; {} if it is absent. Raises `DamagedError` if it holds
    anything but an object."""
    try:
        text = files.read(path)
        if len(text) > _MAX_BYTES:
            raise DamagedError(f"{path}: damaged: expected at most {_MAX_BYTES} bytes of JSON")
        content = json.loads(text)
    except FileNotFoundError:
        return {}
    except DamagedError:
        raise
    except (ValueError, RecursionError) as error:
        raise DamagedError(f"{path}: damaged, no JSON ({error})") from error
    if not isinstance(content, dict) or not content:
        raise DamagedError(f"{path}: damaged: expected a JSON object with content")
    return content


def _undamaged(files: Files, path: Path) -> dict[str, Any]:
    """Return the content of a JSON file that can be done without; {} if it is damaged."""
    try:
        return read_json(files, path)
    except DamagedError:
        return {}


T = TypeVar("T")


def parsed(kind: type[T], files: Files, path: Path) -> T | None:
    """Return a JSON file as a dataclass of plain values; None if it is absent. Raises
    `DamagedError` if a field is missing, unknown or of another type."""
    content = read_json(files, path)
    if not content:
        return None
    try:
        made = kind(**content)
    except TypeError as error:
        raise DamagedError(f"{path}: damaged: {shown(str(error))}") from error
    for each in fields(made):  # type: ignore[arg-type]
        value = getattr(made, each.name)
        fits = _FITS.get(str(each.type).split("[")[0])
        if fits and not fits(value):
            raise DamagedError(
                f"{path}: damaged: {each.name} = {shown(value)}: expected {each.type}"
            )
    return made


_FITS: Mapping[str, Callable[[Any], bool]] = {
    "str": lambda value: isinstance(value, str),
    "int": lambda value: isinstance(value, int),
    "float": lambda value: isinstance(value, (int, float)),
    "bool": lambda value: isinstance(value, bool),
    "Mapping": lambda value: isinstance(value, dict),
    "Sequence": lambda value: isinstance(value, list),
    "RunKind": lambda value: value in get_args(RunKind),
    "RunStatus": lambda value: value in get_args(RunStatus),
}
"""Whether a value is of a type that the fields of `RunInfo`, `Outcome` and `Holder` have."""


def _is_metrics(value: Any) -> TypeGuard[dict[str, float]]:
    return isinstance(value, dict) and all(type(each) in (int, float) for each in value.values())


def _is_delivery(value: Any) -> TypeGuard[dict[str, Any]]:
    """Return whether a value is what was recorded of a delivery."""
    if not isinstance(value, dict):
        return False
    ids = [value.get(name, "") for name in ("uri", "run_id", "key")]
    previous = value.get("previous_run_ids", [])
    return isinstance(previous, list) and all(isinstance(each, str) for each in (*ids, *previous))


def _is_names(value: Any) -> TypeGuard[list[str]]:
    """Return whether a value is a list of the keys of pictures, none of which leads elsewhere."""
    return isinstance(value, list) and all(
        isinstance(each, str) and ".." not in each and not each.startswith("/") for each in value
    )
