"""Test sets as tasks of lm-evaluation-harness: files for it, and the classes that these name."""
