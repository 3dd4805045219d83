"""Scores with intervals: likelihood judge, comparators, calibration."""
