"""The Key Object Selection."""
