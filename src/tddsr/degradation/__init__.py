"""The synthetic camera: Real-ESRGAN's two-stage degradation as pure functions with a generator."""

from tddsr.degradation.pipeline import degrade, degrade_mixed, degrade_pair
from tddsr.degradation.presets import PRESETS, Degradation, Preset, choose_presets

__all__ = ["PRESETS", "Degradation", "Preset", "choose_presets", "degrade", "degrade_mixed", "degrade_pair"]
