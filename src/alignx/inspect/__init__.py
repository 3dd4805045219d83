"""Looking into a run directory: what is there, how the experts lie to each other, and pictures of it."""
