"""The synthetic camera: Real-ESRGAN's two-stage degradation as pure functions with a generator."""

from tddsr.degradation.pipeline import Degradation, Preset, degrade, degrade_mixed, degrade_pair

__all__ = ["Degradation", "Preset", "degrade", "degrade_mixed", "degrade_pair"]
