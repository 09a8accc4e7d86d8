"""The calibrated roofline of a served language model: the mean decode step as weighed terms. A door of `cost`."""

from __future__ import annotations

from inlay.cost.serving.calibration import Calibration, calibrate, scaled_to
from inlay.cost.serving.configuration import Configuration, Engine, Load
from inlay.cost.serving.points import MeasuredPoint, Points, read_points
from inlay.cost.serving.predictor import Prediction, Predictor, StepModel
from inlay.cost.serving.shipped import measured_points
from inlay.cost.serving.terms import IDEAL, decode_terms

__all__ = [
    "IDEAL",
    "Calibration",
    "Configuration",
    "Engine",
    "Load",
    "MeasuredPoint",
    "Points",
    "Prediction",
    "Predictor",
    "StepModel",
    "calibrate",
    "decode_terms",
    "measured_points",
    "read_points",
    "scaled_to",
]
