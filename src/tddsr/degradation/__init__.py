"""The synthetic camera: Real-ESRGAN's two-stage degradation as pure functions with a generator."""
