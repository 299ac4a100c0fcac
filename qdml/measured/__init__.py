"""Measured patterns: the answer of a network, the fit that goes on from it, doubts, how it is shown."""
