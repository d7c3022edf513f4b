"""Covariances of Gaussian noise that is not white: a small family, each member diagonal in a basis
that it knows, each in a file of its own. Each raises ``ValueError`` for variances that are not
finite numbers > 0.

``operator.posterior_covariance(r2, s2)`` says which one a measurement makes,
``prior.know().denoise_under(mu, covariance)`` is the prior's denoiser under it.
"""

from posteriori.covariances.base import NoiseCovariance, Of
from posteriori.covariances.blocks import BlockNoise
from posteriori.covariances.colours import ColourNoise
from posteriori.covariances.cosine import CosineNoise
from posteriori.covariances.fourier import FourierNoise
from posteriori.covariances.matrix import MatrixNoise
from posteriori.covariances.pixels import PixelNoise
from posteriori.covariances.rows import RowsNoise
from posteriori.covariances.singular import SingularNoise
from posteriori.covariances.white import WhiteNoise
from posteriori.covariances.whitening import PairWhitening, RootWhitening, Whitening

__all__ = [
    "BlockNoise",
    "ColourNoise",
    "CosineNoise",
    "FourierNoise",
    "MatrixNoise",
    "NoiseCovariance",
    "Of",
    "PairWhitening",
    "PixelNoise",
    "RootWhitening",
    "RowsNoise",
    "SingularNoise",
    "WhiteNoise",
    "Whitening",
]
