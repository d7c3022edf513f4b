"""Priors: what we believe about images, seen only as a denoiser."""

from posteriori.priors.base import Prior
from posteriori.priors.combine import ComplexImages
from posteriori.priors.diffusers import from_diffusers
from posteriori.priors.mixture import Gaussian, GaussianMixture
from posteriori.priors.network import Network
from posteriori.priors.pretrained import digits, from_pretrained, photos, save_pretrained
from posteriori.priors.schedule import VE, ContinuousVP, DiscreteVP, RectifiedFlow, Schedule
from posteriori.priors.state_dicts import load_state_dict_file, load_weights
from posteriori.priors.unet import UNet

__all__ = [
    "VE",
    "ComplexImages",
    "ContinuousVP",
    "DiscreteVP",
    "Gaussian",
    "GaussianMixture",
    "Network",
    "Prior",
    "RectifiedFlow",
    "Schedule",
    "UNet",
    "digits",
    "from_diffusers",
    "from_pretrained",
    "load_state_dict_file",
    "load_weights",
    "photos",
    "save_pretrained",
]
