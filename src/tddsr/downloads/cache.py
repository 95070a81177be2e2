"""Where downloads are kept; apart from ``fetch``, as most runs download nothing."""

from __future__ import annotations

import os
from pathlib import Path

CACHE = "TDDSR_CACHE"
"""Environment variable: the folder that downloads go to, else ``~/.cache/tddsr``."""


def cache_folder() -> Path:
    """Where downloads and what is made of them are kept."""
    return Path(os.environ.get(CACHE) or Path.home() / ".cache" / "tddsr")
