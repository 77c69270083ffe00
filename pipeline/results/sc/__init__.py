"""The Secondary Capture."""
