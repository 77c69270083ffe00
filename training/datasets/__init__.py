"""What can be trained on? Every kind of data set becomes the same records; see docs/train.md for the layouts.

Nothing is imported here: the cache can be read where there are no DICOM packages.
"""
