"""Tests of a model: prompts, who answers, answers read and scored, statistics. Scoring imports no torch."""
