"""Model files: what is in them, what they are called, where they come from; and the shipped ones."""
