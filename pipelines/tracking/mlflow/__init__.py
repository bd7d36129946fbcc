"""MLflow. This package alone imports mlflow, whose import takes seconds: `BACKEND` imports it when
it
is first used, and importing this package does not."""

from pipelines.tracking.mlflow.backend import MlflowBackend

BACKEND = MlflowBackend()
