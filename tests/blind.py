"""Small problems with an unknown instrument, shared by the tests of the methods for them."""

import torch
from reference import draw

import posteriori as po
from posteriori.priors import Gaussian, Joint
from posteriori.tasks.kernels import ring_parts

ops, F64 = po.operators, torch.float64


class Same:
    """The same normal numbers for each row at every call, ``size`` times as large."""

    def __init__(self, size=1.0):
        self.size = size

    def normal(self, like):
        return self.size * draw(*like.shape[1:], seed=like[0].numel()).expand(like.shape)


def smooth(side, width, dtype=F64):
    """A covariance (side^2, side^2) that falls with the distance of two pixels."""
    i = torch.arange(side, dtype=F64)
    place = torch.cartesian_prod(i, i)
    C = torch.exp(-0.5 * torch.cdist(place, place).square() / width**2)
    return (C + 1e-3 * torch.eye(side**2, dtype=F64)).to(dtype)


def blind_post(spread=0.03, dtype=F64, side=8, sigma=0.02):
    """y = k * image of side x side and 3 x 3 numbers, both Gaussian; the image in [0, 1], its prior
    in [-1, 1]."""
    image = Gaussian(
        torch.zeros(1, side, side, dtype=dtype), 0.1 * smooth(side, 2.0, dtype), range=(-1, 1)
    )
    middle = ops.gaussian_kernel(0.8, 3).to(dtype)
    prior = Joint({"image": image, "kernel": Gaussian(middle, spread**2)}, ranges={"image": (0, 1)})
    A = ops.BlindConvolution((1, side, side), (3, 3))
    x = 0.5 + 0.1 * draw(1, 1, side, side, dtype=dtype)
    y = A.apply(x, middle)[0] + sigma * draw(1, side, side, seed=1, dtype=dtype)
    return po.Posterior(prior, po.Likelihood(y, A, po.noise.Gaussian(sigma)))


def known_kernel(spread, side=4):
    """A pair whose kernel is nearly a point, and the posterior of the image at that kernel."""
    post = blind_post(spread, side=side)
    image, kernel = post.prior.priors
    known = post.given.A.at(kernel.mean)
    given = po.Likelihood(post.given.y, known, post.given.noise, range=(0, 1))
    return post, po.Posterior(image, given)


def wide_post(side=6, sigma=0.05, width=1.0, seed=0, spread=0.4):
    """y = Gaussian blur of unknown width of a smooth Gaussian image, side x side, drawn from its
    prior."""
    image = Gaussian(torch.zeros(1, side, side, dtype=F64), smooth(side, 1.2))
    belief = Gaussian(torch.zeros(1, dtype=F64), spread**2)
    A = ops.BlindGaussianBlur((1, side, side), 5)
    phi = torch.tensor([width], dtype=F64).log()
    x = image.sample(1, seed)
    y = A.apply(x, phi)[0] + sigma * draw(1, side, side, seed=seed + 1000)
    prior = Joint({"image": image, "log_width": belief})
    return po.Posterior(prior, po.Likelihood(y, A, po.noise.Gaussian(sigma)))


def kernels_post(sigma=0.03, truth=0, spread=1e-3):
    """The finite set of kernels of ``tasks.kernels`` with a true one that is chosen. Returns the
    posterior and the kernels (4, 1, n)."""
    kernels, image = ring_parts()
    n = kernels.shape[-1]
    A = ops.BlindConvolution((1, 1, n), (1, n))
    x = image.sample(1, 3)
    y = A.apply(x, kernels[truth])[0] + sigma * draw(1, 1, n, seed=5)
    prior = Joint({"image": image, "kernel": po.priors.kernel_family(kernels, spread)})
    return po.Posterior(prior, po.Likelihood(y, A, po.noise.Gaussian(sigma))), kernels
