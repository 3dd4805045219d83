"""Answers of every method, generated once, and what judges say of them: verdicts, rows, figures."""
