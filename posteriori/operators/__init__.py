"""Operators: how an instrument turns an image into a clean measurement."""

from posteriori.operators.affine import Affine
from posteriori.operators.base import LinearOperator, Operator, Spectrum, log_det, matrix, norm2, pinv, solve
from posteriori.operators.dense import Dense

__all__ = ["Affine", "Dense", "LinearOperator", "Operator", "Spectrum", "log_det", "matrix", "norm2", "pinv", "solve"]
