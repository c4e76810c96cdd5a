"""What of a data set, or of a new scan, is doubted before it is believed: told with its reason, and how to mend it."""
