"""Align a language model on several axes and mix the experts with calibrated weights."""
