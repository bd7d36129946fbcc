"""Evaluates models: on the validation split during training, on the test split afterwards.

Imports `gen_models` and the packages of `pipelines` below this one; no MLflow, and Ray in
`workers` alone.
"""
