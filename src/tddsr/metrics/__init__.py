"""Scores of pictures, by name in `table`."""
