"""Clean patterns -> what a detector would have counted, in batches."""
