"""Branches beside frozen linears: routing, orthogonality, merging, files, and loading a model with them."""
