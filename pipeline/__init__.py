"""From the images of one study to findings and DICOM results.

No network, no database, no queue, no wall clock: everything here is a function of files, a profile and a device.
"""

__version__ = "0.1.0"
