"""libvips, set up for files from anywhere."""

from typing import Any

import pyvips

# What it says of damaged files goes to a logger, on a way that stops at text which is not UTF-8.
pyvips._to_string = lambda text: pyvips.ffi.string(text).decode(errors="replace")
# Loaders that its authors do not trust with such files are never tried.
pyvips.block_untrusted_set(True)
# Nothing is asked for twice; and a file may have changed since it was last read.
pyvips.cache_set_max(0)
# Each thread has rows of its own; encoders use one anyway.
pyvips.concurrency_set(1)


def open_in_rows(content: bytes, page: int = 0, fail_on: str = "error") -> pyvips.Image:
    """A picture that is decoded from top to bottom as it is asked for; damage is an error then."""
    image = _opened(content, page, fail_on)
    if image.get("vips-loader").startswith("tiff") and image.get_typeof("tile-width"):
        # A tile that is missing is but a warning to libvips; so is what can be mended of other files.
        image = _opened(content, page, "warning")
    return image


def _opened(content: bytes, page: int, fail_on: str) -> pyvips.Image:
    options: dict[str, Any] = {"page": page} if page else {}
    source = pyvips.Source.new_from_memory(content)  # of a buffer it would make a copy
    return pyvips.Image.new_from_source(source, "", access="sequential", fail_on=fail_on, **options)


__all__ = ["open_in_rows", "pyvips"]
