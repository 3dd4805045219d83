"""Prompt signatures -> calibrated routing: whose data a prompt is like, which expert serves it, what is mixed."""
