"""Priors: what we believe about images, seen only as a denoiser."""

from typing import NoReturn

from posteriori.priors.ambient import Ambient, complementary_masks
from posteriori.priors.autoencoders import Autoencoder, LinearAutoencoder
from posteriori.priors.averaged import AveragedScores, Turned
from posteriori.priors.base import Prior
from posteriori.priors.combine import ComplexImages
from posteriori.priors.conditioned import Conditioned
from posteriori.priors.diffusers import from_diffusers
from posteriori.priors.grey import GreyImages
from posteriori.priors.joint import Joint
from posteriori.priors.kernels import gaussian_kernels, kernel_family, motion_kernels
from posteriori.priors.latent import Latent
from posteriori.priors.leaves import linearize_at, linearize_leaves
from posteriori.priors.load import load, recognise
from posteriori.priors.mixture import Gaussian, GaussianMixture
from posteriori.priors.network import Network
from posteriori.priors.pipelines import from_diffusers_pipeline
from posteriori.priors.plane import Plane
from posteriori.priors.pretrained import (
    blur_kernels,
    brain_mri,
    chest_ct,
    digits,
    from_pretrained,
    photos,
    save_pretrained,
    text_digits,
)
from posteriori.priors.schedule import VE, ContinuousVP, DiscreteVP, RectifiedFlow, Schedule
from posteriori.priors.slices import Slices
from posteriori.priors.state_dicts import load_state_dict_file, load_weights
from posteriori.priors.text import SentenceEncoder
from posteriori.priors.tiles import Patches, Tiles
from posteriori.priors.unet import UNet
from posteriori.settings import absent

__all__ = [
    "VE",
    "Ambient",
    "Autoencoder",
    "AveragedScores",
    "ComplexImages",
    "Conditioned",
    "ContinuousVP",
    "DiscreteVP",
    "Gaussian",
    "GaussianMixture",
    "GreyImages",
    "Joint",
    "Latent",
    "LinearAutoencoder",
    "Network",
    "Patches",
    "Plane",
    "Prior",
    "RectifiedFlow",
    "Schedule",
    "SentenceEncoder",
    "Slices",
    "Tiles",
    "Turned",
    "UNet",
    "blur_kernels",
    "brain_mri",
    "chest_ct",
    "complementary_masks",
    "digits",
    "from_diffusers",
    "from_diffusers_pipeline",
    "from_pretrained",
    "gaussian_kernels",
    "kernel_family",
    "linearize_at",
    "linearize_leaves",
    "load",
    "load_state_dict_file",
    "load_weights",
    "motion_kernels",
    "photos",
    "recognise",
    "save_pretrained",
    "text_digits",
]

# What other libraries and papers call these priors.
_ELSEWHERE = {
    "Diffusers": "from_diffusers(folder), or from_diffusers_pipeline(folder) of latents",
    "StableDiffusion": "from_diffusers_pipeline(folder)",
    "Flux": "from_diffusers_pipeline(folder)",
    "Denoiser": "Network(net, shape=..., parametrization=..., schedule=...)",
    "DiffusionModel": "Network(net, shape=..., parametrization=..., schedule=...)",
    "Score": "Network(net, parametrization='score', ...)",
    "VAE": "Autoencoder(net, factor=..., channels=..., latent_channels=...) in a Latent prior",
    "LatentDiffusion": "Latent(prior, autoencoder, scale=...)",
    "Flow": "Network(net, parametrization='flow', schedule=RectifiedFlow())",
    "EDM": "Network(net, parametrization='edm', ...)",
    "VP": "DiscreteVP or ContinuousVP",
    "Product": "Joint({name: prior, ...})",
    "Independent": "Joint({name: prior, ...})",
    "GMM": "GaussianMixture(weights, means, covariances)",
    "Mixture": "GaussianMixture(weights, means, covariances)",
    "Normal": "Gaussian(mean, covariance)",
}


def __getattr__(name: str) -> NoReturn:
    raise absent(__name__, name, __all__, _ELSEWHERE)
