"""Distances between sets of features, agreement between pictures and captions. Algebra only."""
