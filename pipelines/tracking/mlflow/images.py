"""Logs a run's pictures into MLflow's image grid: each key once per step.

The grid shows the files under `images/` whose names `log_image` made, and these names hold a
random part: a picture that is logged twice is shown twice. So what is there is listed first.
"""

from __future__ import annotations

import logging
import re
from pathlib import Path
from tempfile import TemporaryDirectory

from mlflow import MlflowClient
from mlflow.tracking.multimedia import compress_image_size
from mlflow.utils.mlflow_tags import MLFLOW_LOGGED_IMAGES
from PIL import Image

from pipelines.store.journal import EpochRecord, Journal

_log = logging.getLogger(__name__)
_FOLDER = "images"
_NAME = re.compile(r"(?P<stem>(?P<key>.+)\+step\+(?P<step>\d+)\+.+?)(?P<small>\+compressed)?\.\w+")


class Pictures:
    """The pictures of one MLflow run, those of its beginning first. What the run holds is listed
    when the first one is delivered."""

    def __init__(self, client: MlflowClient, run_id: str) -> None:
        self._client, self._run_id = client, run_id
        self._stems: dict[tuple[str, int], str] | None = None
        self._small: set[str] = set()

    def deliver(self, journal: Journal, record: EpochRecord, at: int) -> None:
        """Log the pictures of an epoch that are missing; `at`: their time in milliseconds."""
        if record.pictures and self._stems is None:
            self._stems = self._listed()
            self._deliver(journal.start(), journal.started_ms())
        self._deliver(record, at)

    def _deliver(self, record: EpochRecord, at: int) -> None:
        for key, path in record.pictures.items():
            image = _read(path)
            stem = (self._stems or {}).get((key.replace("/", "~"), record.epoch))
            if image and stem:
                self._complete(stem, image)
            elif image:
                self._client.log_image(
                    self._run_id,
                    image,
                    key=key,
                    step=record.epoch,
                    timestamp=at,
                    synchronous=True,
                )

    def _listed(self) -> dict[tuple[str, int], str]:
        """Return the names under `images/`, without endings, by key and step."""
        stems = {}
        for file in self._client.list_artifacts(self._run_id, _FOLDER):
            if not (name := _NAME.fullmatch(Path(file.path).name)):
                continue
            if name["small"]:
                self._small.add(name["stem"])
            else:
                stems[name["key"], int(name["step"])] = name["stem"]
        return stems

    def _complete(self, stem: str, image: Image.Image) -> None:
        """Finish a `log_image` that was interrupted: log the thumbnail, then set the tag."""
        if stem not in self._small:
            with TemporaryDirectory() as folder:
                small = Path(folder) / f"{stem}+compressed.webp"
                compress_image_size(image).save(small)
                self._client.log_artifact(self._run_id, str(small), _FOLDER)
        self._client.set_tag(self._run_id, MLFLOW_LOGGED_IMAGES, "True")


def _read(path: Path) -> Image.Image | None:
    """Return a picture; None if its file is damaged or missing, which holds up nothing else."""
    try:
        with Image.open(path) as image:
            image.load()
            return image
    except (OSError, SyntaxError, ValueError) as error:  # as Pillow raises them
        _log.warning("%s is not delivered: %s", path, error)
        return None
