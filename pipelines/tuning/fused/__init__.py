"""Trials of a search that are trained together, by one long-lived process per device."""
