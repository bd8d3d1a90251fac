"""Arrays to lesions to numbers: separation and measurement, without torch."""
