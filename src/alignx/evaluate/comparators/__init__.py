"""What AlignX is compared with, under one interface: see `interface` and `registry`."""
