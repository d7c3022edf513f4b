"""A blur that is one of four, on a ring of pixels: the blind problem whose answer is known.

    y = k_j * x + sigma z,   x ~ N(0, C) stationary,   j = 1 ... 4 alike

The kernels are Gaussians of 0.6, 1.5 and 3 pixels, and the second one shifted by two. Since C does
not tell one place of the ring from another, y gives the shifted pair equal probabilities, whatever
it is: a method must find both. The widths are told apart by y as well as its noise allows:

    p(k_j | y) ~ N(y; 0, A_j C A_j^T + sigma^2 I)

The prior of the kernel is a mixture of ``SPREAD`` around the four, so that diffusions can work on
it; beside sigma its spread says nothing of y.
"""

from __future__ import annotations

import torch
from torch import Tensor

from posteriori.evaluation.blind import known_instrument, parameter_probabilities
from posteriori.likelihood import Likelihood, Posterior
from posteriori.methods.blind.beliefs import family_of
from posteriori.methods.blind.pair import blind_pair
from posteriori.noise import Gaussian
from posteriori.operators import BlindConvolution
from posteriori.packing import pack
from posteriori.priors import Joint, kernel_family
from posteriori.priors.mixture import Gaussian as GaussianPrior
from posteriori.tasks.beds import Bed

PIXELS, SPREAD = 24, 1e-3
# What noise of this level leaves of a kernel is below its spread, and far below that of an image.
SIGMA_MIN = 0.01
KERNEL_SIGMAS = (0.03, 0.3, 1.0)


def ring_parts(n: int = PIXELS) -> tuple[Tensor, GaussianPrior]:
    """The kernels (4, 1, n), and the law of the images (1, 1, n)."""
    t = (torch.arange(n, dtype=torch.float64) + n // 2) % n - n // 2

    def kernel(width: float, shift: int = 0) -> Tensor:
        k = torch.exp(-0.5 * (t / width) ** 2)
        return torch.roll(k / k.sum(), n // 2 + shift)

    kernels = torch.stack([kernel(0.6), kernel(1.5), kernel(3.0), kernel(1.5, 2)])[:, None]
    apart = (t[:, None] - t).abs()
    C = torch.exp(-torch.minimum(apart, n - apart) / 4)
    return kernels, GaussianPrior(torch.zeros(1, 1, n, dtype=torch.float64), C)


def kernels(sigma: float, seed: int = 0) -> Bed:
    """The problem with y from a draw of the model: kernel, image and noise by ``seed``.

    sigma: the noise level, > 0; at 0.03 the widths are told apart with certainty, at 1 hardly.
    Raises ``ValueError`` otherwise.
    """
    if not sigma > 0:
        raise ValueError(f"kernels needs a noise level > 0, got {sigma}")
    four, image = ring_parts()
    g = torch.Generator().manual_seed(seed)
    j = int(torch.randint(len(four), (1,), generator=g))
    x = image.sample(1, int(torch.randint(2**31, (1,), generator=g)))
    A = BlindConvolution((1, 1, PIXELS), (1, PIXELS))
    clean = A.apply(x, four[j])[0]
    y = clean + sigma * torch.randn(clean.shape, generator=g, dtype=torch.float64)
    prior = Joint({"image": image, "kernel": kernel_family(four, SPREAD)})
    post = Posterior(prior, Likelihood(y, A, Gaussian(sigma)))
    truth = pack({"image": x, "kernel": four[j][None]})[0]
    return Bed(post, prior.sigma_max, SIGMA_MIN, truth)


def exact_pairs(post: Posterior, n: int, seed: int) -> Tensor:
    """n independent draws (n, d) of image and kernel given y: a kernel by its probability, the
    image given it. Kernels are the members of the family, without their spread."""
    members = family_members(post)
    chosen = torch.multinomial(
        kernel_probabilities(post),
        n,
        replacement=True,
        generator=torch.Generator().manual_seed(seed),
    )
    images = torch.stack([known_instrument(post, k).sample(n, seed) for k in members])
    return pack({"image": images[chosen, torch.arange(n)], "kernel": members[chosen]})


def kernel_probabilities(post: Posterior) -> Tensor:
    """p(k_j | y) of the members of the family, (K,) float64."""
    log_w = family_of(blind_pair(post)).log_weights
    return parameter_probabilities(post, family_members(post), log_w)


def family_members(post: Posterior) -> Tensor:
    """The kernels (K, kh, kw) around which the family of a pair lies."""
    pair = blind_pair(post)
    return family_of(pair).means.view(-1, *pair.A.parameters_shape)
