"""Memory, hours and cost of training, from a model's shape alone."""
