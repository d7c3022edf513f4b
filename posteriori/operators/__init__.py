"""Operators: how an instrument turns an image into a clean measurement."""

from posteriori.operators.affine import Affine
from posteriori.operators.base import (
    AdjointError,
    LinearOperator,
    Operator,
    SolveError,
    Spectrum,
    dot_test,
    log_det,
    matrix,
    norm2,
    pinv,
    solve,
)
from posteriori.operators.blur import Blur, gaussian_kernel
from posteriori.operators.channels import ComplexChannels
from posteriori.operators.clip import Clip
from posteriori.operators.compose import Chain, Compose
from posteriori.operators.dense import Dense
from posteriori.operators.downsample import Downsample
from posteriori.operators.fourier import MaskedFourier
from posteriori.operators.grey import Grey
from posteriori.operators.identity import Identity
from posteriori.operators.jpeg import JPEG
from posteriori.operators.mask import Mask, box_mask, random_mask
from posteriori.operators.multicoil import MultiCoilFourier
from posteriori.operators.nothing import Nothing
from posteriori.operators.phase import PhaseRetrieval
from posteriori.operators.radon import Radon
from posteriori.operators.stack import Stack

__all__ = [
    "JPEG",
    "AdjointError",
    "Affine",
    "Blur",
    "Chain",
    "Clip",
    "ComplexChannels",
    "Compose",
    "Dense",
    "Downsample",
    "Grey",
    "Identity",
    "LinearOperator",
    "Mask",
    "MaskedFourier",
    "MultiCoilFourier",
    "Nothing",
    "Operator",
    "PhaseRetrieval",
    "Radon",
    "SolveError",
    "Spectrum",
    "Stack",
    "box_mask",
    "dot_test",
    "gaussian_kernel",
    "log_det",
    "matrix",
    "norm2",
    "pinv",
    "random_mask",
    "solve",
]
