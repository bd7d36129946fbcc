"""Records in MLflow, and reads from it. This package alone imports mlflow.

The import takes seconds, so `BACKEND` imports mlflow when it is first used; importing this package
does not.
"""

from pipelines.tracking.mlflow.backend import MlflowBackend

BACKEND = MlflowBackend()
