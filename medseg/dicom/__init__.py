"""Core values to DICOM objects and back: segmentations, reports, structure sets."""
