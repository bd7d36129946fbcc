"""Results as dataclasses and JSON, on the console, and as a search's HTML page."""
