"""The runtime: one copy of the base, experts behind gates, a dial for every row of a batch."""
