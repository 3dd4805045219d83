"""The report: one page with pictures, the same in markdown."""
