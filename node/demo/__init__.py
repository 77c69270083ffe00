"""What does the node do, start to finish? The main job once, on the bundled study, with real DICOM on both sides."""
