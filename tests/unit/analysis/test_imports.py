"""`pipelines.analysis` is pure: it runs where Ray, MLflow and torch cannot be imported."""

import pkgutil
import subprocess
import sys

from pipelines import analysis

MODULES = [module.name for module in pkgutil.iter_modules(analysis.__path__)]
CODE = """
import sys
from importlib import import_module

for name in ("ray", "mlflow", "torch", "optuna"):
    sys.modules[name] = None  # its import raises ImportError
for name in sys.argv[1:]:
    import_module(f"pipelines.analysis.{name}")
"""


def test_it_imports_no_ray_mlflow_or_torch() -> None:
    assert len(MODULES) >= 5
    ran = subprocess.run([sys.executable, "-c", CODE, *MODULES], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
