"""Scores of finished pictures and the protocol that they are measured by."""
