"""The two stages: their loop, their loss, checkpoints, devices, experiment trackers."""
