"""``python -m tddsr`` is the command ``tddsr``."""

from tddsr.cli import main

main()
