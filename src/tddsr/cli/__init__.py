"""The commands: they read options, call the library and print. Heavy imports wait until a command runs."""

from tddsr.cli import pictures, scores, training
from tddsr.cli.root import app, main

__all__ = ["app", "main", "pictures", "scores", "training"]
