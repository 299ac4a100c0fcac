"""Pair distances: of one particle, or of every size of a family in one pass."""
