"""The synthetic camera: Real-ESRGAN's two-stage degradation as pure functions with a generator."""

from tddsr.degradation.pipeline import Degradation, degrade, degrade_pair

__all__ = ["Degradation", "degrade", "degrade_pair"]
