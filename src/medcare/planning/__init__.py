"""Before a run: settings that fit someone's data; memory, hours and cost from a model's shape alone."""
