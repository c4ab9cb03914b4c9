"""Multiple-choice questions: how one is put, and which options a text chooses. Imports no torch."""
