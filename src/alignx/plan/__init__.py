"""What a run will need, from the model's config alone: no weight is read."""
