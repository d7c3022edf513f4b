"""Priors: what we believe about images, seen only as a denoiser."""

from posteriori.priors.base import Prior
from posteriori.priors.mixture import Gaussian, GaussianMixture

__all__ = ["Gaussian", "GaussianMixture", "Prior"]
