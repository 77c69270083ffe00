"""What do the files of a study contain? From DICOM to volumes."""
