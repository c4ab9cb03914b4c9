"""Anything that people have as conversations and test items: readers, checks, mixes, overlap."""
