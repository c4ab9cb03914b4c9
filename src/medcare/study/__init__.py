"""Controlled comparisons: a grid of settings and seeds, run cell by cell, and what its cells say."""
