"""Judges of answers, one a file, behind one small interface."""
