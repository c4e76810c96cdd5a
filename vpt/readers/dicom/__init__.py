"""DICOM: series as scans, segmentations as labels, masks as segmentations. pydicom and highdicom stay in here."""
