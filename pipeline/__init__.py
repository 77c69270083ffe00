"""From the images of one study to findings and DICOM results.

No network, database, queue or clock: every result is a function of the files, the profile and the device.
"""

__version__ = "0.1.0"
