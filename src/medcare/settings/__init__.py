"""Every setting, YAML files and presets, and the folder that a run with those settings writes."""
