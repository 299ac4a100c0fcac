"""Stress: sets of test patterns off the published grid, stored and named, and what a model says of them.

`sets.py` says what a set holds (`conf/stress/`), `make.py` simulates it, `files.py` keeps it, `table.py` runs a model
over it.
"""
