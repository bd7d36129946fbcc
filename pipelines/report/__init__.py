"""Results, and how they are shown: typed results, the console, a search's page."""
