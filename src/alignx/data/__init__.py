"""Axis name -> prompts, targets and their splits, as tokens."""
