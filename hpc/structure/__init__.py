"""What a dot is, and where its atoms are."""
