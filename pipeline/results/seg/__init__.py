"""The Segmentation."""
