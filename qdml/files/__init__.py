"""Measured files: columns, pattern, noise; how commands ask for them, what they write and say."""
