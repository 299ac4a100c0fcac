"""Measured files: reading, the answer of a network, how it is shown."""
