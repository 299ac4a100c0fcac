"""Least-squares fits of measured patterns: forward model with exact derivatives, variable projection, profiles."""

from qdml.fitting.fit import Fit, fit_pattern
from qdml.fitting.settings import FitSettings, fit_settings

__all__ = ["Fit", "FitSettings", "fit_pattern", "fit_settings"]
