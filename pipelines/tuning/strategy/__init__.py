"""Which configs a search tries, and for how long: its space, searchers, schedulers, and what they
know of trials that are recorded."""
