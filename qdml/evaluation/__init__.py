"""A model on patterns it has not learned from, every number beside what is possible.

`samples.py` chooses the dots, `classes.py` tries classes, `posterior.py` tries posteriors, `scores.py` scores them,
`summary.py` says it in a few lines.
"""
