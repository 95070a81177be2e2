"""The synthetic camera: Real-ESRGAN's two-stage degradation as pure functions with a generator."""

from tddsr.degradation.pipeline import (
    PRESETS,
    Degradation,
    Preset,
    choose_presets,
    degrade,
    degrade_mixed,
    degrade_pair,
)

__all__ = ["PRESETS", "Degradation", "Preset", "choose_presets", "degrade", "degrade_mixed", "degrade_pair"]
