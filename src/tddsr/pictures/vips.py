"""libvips, set up for files from anywhere."""

import os

# Its warnings of damaged files are nothing for a terminal; and the logger of pyvips fails at those that are no UTF-8.
os.environ.setdefault("VIPS_WARNING", "1")

import pyvips

pyvips._remove_log_handler()
# Loaders that its authors do not trust with such files are never tried.
pyvips.block_untrusted_set(True)
# Nothing is asked for twice; and a file may have changed since it was last read.
pyvips.cache_set_max(0)
# Each thread has rows of its own; encoders use one anyway.
pyvips.concurrency_set(1)

__all__ = ["pyvips"]
