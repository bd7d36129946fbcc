"""Ranks trials and selects the champion, from records alone.

Pure functions: no Ray, MLflow or torch is imported here.
"""
