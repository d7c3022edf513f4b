"""Operators: how an instrument turns an image into a clean measurement."""

from typing import NoReturn

from posteriori.operators.affine import Affine
from posteriori.operators.along_axis import AlongAxis, kept_frames, temporal_blur, thick_slices
from posteriori.operators.aperture_synthesis import ApertureSynthesis
from posteriori.operators.back_projection import back_projection
from posteriori.operators.base import (
    AdjointError,
    LinearOperator,
    Operator,
    SolveError,
    Spectrum,
    dot_test,
    norm2,
    pinv,
    solve,
)
from posteriori.operators.blind_coil_phase import BlindCoilPhase
from posteriori.operators.blind_convolution import BlindConvolution
from posteriori.operators.blind_gamma import BlindGamma
from posteriori.operators.blind_gaussian_blur import BlindGaussianBlur
from posteriori.operators.blind_rotation_centre import BlindRotationCentre
from posteriori.operators.blind_turbulence import BlindTurbulence
from posteriori.operators.blur import Blur, gaussian_kernel
from posteriori.operators.channels import ComplexChannels
from posteriori.operators.clip import Clip
from posteriori.operators.closures import Closures
from posteriori.operators.compose import Chain, Compose
from posteriori.operators.cone_beam import ConeBeam, FanBeam
from posteriori.operators.dense import Dense
from posteriori.operators.dense_matrix import log_det, matrix
from posteriori.operators.detector_shift import DetectorShift
from posteriori.operators.downsample import Downsample
from posteriori.operators.foreign import wrap
from posteriori.operators.fourier import MaskedFourier
from posteriori.operators.gain import gain
from posteriori.operators.gamma import Gamma
from posteriori.operators.grey import Grey
from posteriori.operators.identity import Identity
from posteriori.operators.jpeg import JPEG
from posteriori.operators.mask import Mask, box_mask, random_mask
from posteriori.operators.modulus import Modulus, coded_diffraction
from posteriori.operators.mosaic import bayer_mask
from posteriori.operators.multicoil import MultiCoilFourier
from posteriori.operators.navier_stokes import NavierStokes
from posteriori.operators.noncartesian import NonCartesianFourier
from posteriori.operators.null import Null
from posteriori.operators.packed import Packed
from posteriori.operators.parametric import Parametric
from posteriori.operators.phase import PhaseRetrieval
from posteriori.operators.phase_map import PhaseMap
from posteriori.operators.ptychography import Ptychography
from posteriori.operators.quadrature import Quadrature
from posteriori.operators.quantize import Quantize
from posteriori.operators.radon import Radon
from posteriori.operators.row_wise import RowWise
from posteriori.operators.scaled import Scaled
from posteriori.operators.single_pixel import SinglePixel
from posteriori.operators.slicewise import Slicewise
from posteriori.operators.sparse import Sparse
from posteriori.operators.stack import Stack
from posteriori.operators.transmission import Transmission
from posteriori.operators.units import Units
from posteriori.operators.varying_blur import VaryingBlur
from posteriori.operators.warp import Warp
from posteriori.operators.weighted import Weighted
from posteriori.operators.whitened import Whitened, Whitener
from posteriori.settings import absent

__all__ = [
    "JPEG",
    "AdjointError",
    "Affine",
    "AlongAxis",
    "ApertureSynthesis",
    "BlindCoilPhase",
    "BlindConvolution",
    "BlindGamma",
    "BlindGaussianBlur",
    "BlindRotationCentre",
    "BlindTurbulence",
    "Blur",
    "Chain",
    "Clip",
    "Closures",
    "ComplexChannels",
    "Compose",
    "ConeBeam",
    "Dense",
    "DetectorShift",
    "Downsample",
    "FanBeam",
    "Gamma",
    "Grey",
    "Identity",
    "LinearOperator",
    "Mask",
    "MaskedFourier",
    "Modulus",
    "MultiCoilFourier",
    "NavierStokes",
    "NonCartesianFourier",
    "Null",
    "Operator",
    "Packed",
    "Parametric",
    "PhaseMap",
    "PhaseRetrieval",
    "Ptychography",
    "Quadrature",
    "Quantize",
    "Radon",
    "RowWise",
    "Scaled",
    "SinglePixel",
    "Slicewise",
    "SolveError",
    "Sparse",
    "Spectrum",
    "Stack",
    "Transmission",
    "Units",
    "VaryingBlur",
    "Warp",
    "Weighted",
    "Whitened",
    "Whitener",
    "back_projection",
    "bayer_mask",
    "box_mask",
    "coded_diffraction",
    "dot_test",
    "gain",
    "gaussian_kernel",
    "kept_frames",
    "log_det",
    "matrix",
    "norm2",
    "pinv",
    "random_mask",
    "solve",
    "temporal_blur",
    "thick_slices",
    "wrap",
]

# What other libraries and papers call these operators.
_ELSEWHERE = {
    "SuperResolution": "Downsample(shape, factor)",
    "Downsampling": "Downsample(shape, factor)",
    "Inpainting": "Mask(mask)",
    "Masking": "Mask(mask)",
    "Denoising": "Identity(shape)",
    "Decolorize": "Grey(shape)",
    "Colorization": "Grey(shape)",
    "Deblur": "Blur(kernel, shape)",
    "Deblurring": "Blur(kernel, shape)",
    "GaussianBlur": "Blur(gaussian_kernel(std), shape)",
    "Convolution": "Blur(kernel, shape)",
    "BlindBlur": "BlindConvolution(shape, kernel_shape)",
    "CT": "Radon(shape, angles, pixel_mm)",
    "Tomography": "Radon(shape, angles, pixel_mm), or FanBeam, ConeBeam",
    "Demosaicing": "Mask(bayer_mask(pattern, shape))",
    "SinglePixelCamera": "SinglePixel(shape, count)",
    "VLBI": "ApertureSynthesis(u, v, shape, pixel_uas), or Closures of it",
    "RadioInterferometry": "ApertureSynthesis(u, v, shape, pixel_uas), or Closures of it",
    "SpaceVaryingBlur": "VaryingBlur(kernels, shape)",
    "CodedDiffraction": "coded_diffraction(masks)",
    "PtychographyLinearOperator": "Ptychography(probe, positions, shape)",
    "MRI": "MaskedFourier(mask, shape), or MultiCoilFourier(sensitivities, mask) for several coils",
    "NonCartesianMRI": "NonCartesianFourier(sensitivities, trajectory)",
    "NUFFT": "NonCartesianFourier(sensitivities, trajectory)",
    "SparseMatrix": "Sparse(matrix, shape)",
    "MultiCoilMRI": "MultiCoilFourier(sensitivities, mask)",
    "Fourier": "MaskedFourier(mask, shape)",
    "Saturation": "Clip(shape, gain)",
    "HDR": "Clip(shape, gain)",
    "MatrixOperator": "Dense(matrix, shape)",
    "Matrix": "Dense(matrix, shape)",
    "Composition": "Compose(A, B), also written A @ B",
    "Stacked": "Stack(A, B, ...)",
}


def __getattr__(name: str) -> NoReturn:
    raise absent(__name__, name, __all__, _ELSEWHERE)
