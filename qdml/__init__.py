"""Learning: store -> augmented batches -> networks -> the size of a measured sample."""
