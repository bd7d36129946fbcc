"""Configs of runs and searches: settings, checks, objectives, `config.json`."""
