"""The Structured Report."""
