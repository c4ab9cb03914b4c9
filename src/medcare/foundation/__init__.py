"""What everything stands on: errors, whole files or none, locks, progress, processes, processors."""
