"""What is possible: the bounds and classifiers that every answer of a network stands beside."""
