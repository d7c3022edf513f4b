"""What methods for unknown instruments share: the pair (image, parameters) in the user's terms.

The sampler moves u, packed from u_1 of the image and u_2 of the parameters, one noise level sigma
being c_i sigma in part i: x = a_1 c_1 u_1 + b_1, phi = a_2 c_2 u_2 + b_2, y = A(x; phi) + noise.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from posteriori.chart import AffineChart, Pair
from posteriori.likelihood import Likelihood, Posterior
from posteriori.linalg import per_row
from posteriori.methods.data_steps.elliptical_slice import elliptical_slice
from posteriori.methods.data_steps.gaussian_draws import Tilted, exact_draw
from posteriori.noise import Gaussian
from posteriori.operators.base import LinearOperator, Operator
from posteriori.operators.parametric import Parametric
from posteriori.packing import in_a_row, packed_size, unpack
from posteriori.priors.base import Prior
from posteriori.priors.joint import Joint
from posteriori.rng import Rng

# Images of at most so many numbers are solved for by matrices of their own.
_DENSE = 100


@dataclass(frozen=True, eq=False)
class BlindPair:
    """A posterior on the pair. image, belief: the priors of the two parts, in their own ranges.
    chart: that of the pair. A: the family of instruments, in the user's terms."""

    post: Posterior
    image: Prior
    belief: Prior
    chart: Pair
    A: Parametric

    @property
    def units(self) -> tuple[float, float]:
        """c of the two parts."""
        a, b = self.chart.units
        return a, b

    @property
    def small(self) -> bool:
        """Whether images are solved for by matrices of their own."""
        return packed_size({"image": self.A.image_shape}) <= _DENSE

    def split(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """The parts of u (B, d), as they lie in it: (B, *E), (B, *P)."""
        image, phi = unpack(u, self.chart.shapes).values()
        return image, phi

    def told(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """x (B, *E) and phi (B, *P) in the user's terms."""
        x, phi = self.chart.push(u).values()
        return x, phi

    def packed(self, x: Tensor, phi: Tensor) -> Tensor:
        """u (B, d) of these."""
        return in_a_row(
            (part - chart.b) / (chart.a * c)
            for part, chart, c in zip((x, phi), self.chart.parts, self.units, strict=True)
        )

    def feasible(self, u: Tensor) -> Tensor:
        """u with its parameters made feasible."""
        x, phi = self.told(u)
        return self.packed(x, self.A.feasible(phi))

    def known(self, phi: Tensor, row: int = 0) -> Posterior:
        """p(x | y, phi) for one phi (*P) and the measurement of a row, in the coordinates of the
        image's own prior. Counts as calls of the pair's operator."""
        with warnings.catch_warnings(action="ignore"):  # of a kernel on its way, whose sum is not 1
            A = self.post.likelihood.A.counting(self.A.at(phi))
        given, y = self.post.given, self.y(row)
        end = self.chart.parts[0].range
        return Posterior(self.image, Likelihood(y, A, given.noise, range=end, check=False))

    def y(self, row: int) -> Tensor:
        """The measurement of a row, (*O)."""
        each = self.post.likelihood.each
        return each[row if len(each) > 1 else 0]

    def of_parameters(self, x: Tensor, noise: Tensor) -> Likelihood:
        """p(y | x, phi) as a likelihood of phi in the coordinates of its own prior, for images x
        (B, *E) and noise levels (B,) of a batch of rows: linear where the family is in phi.

        Each row is divided by its noise level, so that the law is of level 1.
        """
        own, like, y = self.chart.parts[1], self.post.likelihood, self.post.likelihood.each
        linear = self.A.bilinear
        y = y.expand(len(x), *self.A.out_shape)
        if linear and own.b:
            y = y - self.A.apply(x, x.new_full(self.A.parameters_shape, own.b))
        A = (LinearInParameters if linear else OfParameters)(self.A, x, own, 1 / noise)
        twin = Likelihood(y[0], like.A.counting(A), Gaussian(1.0), check=False)
        return twin.for_rows(y / per_row(noise, y))

    def draw_images(self, m: Tensor, phi: Tensor, r2: float, noise: Tensor, rng: Rng) -> Tensor:
        """x ~ N(x; m, r2 I) p(y | x, phi), m and the draws in the coordinates of the image's own
        prior: (B, *E), for parameters phi (B, *P) and noise levels (B,) of a batch of rows.

        For a family that is linear in x and Gaussian noise. All rows at once where the family knows
        its ``transfer``, and small images by dense matrices; others row by row, by the spectrum of
        the known instrument where it has one.
        """
        a, b = self.chart.parts[0].a, self.chart.parts[0].b
        z = rng.normal(m), rng.normal(self.post.likelihood.each.expand(len(m), *self.A.out_shape))
        if self.small or self.A.transfer(phi[:1]) is not None:
            return self._draw_at_once(a * m + b, phi, a * a * r2, noise, (a * z[0], z[1]))
        rows = []
        for k in range(len(m)):
            like = self.known(phi[k], k).likelihood
            like = replace(like, noise=Gaussian(float(noise[k]) / abs(a)), check=False)
            drawn = Drawn(iter([t[k : k + 1] for t in z]))
            rows.append(exact_draw(Tilted(like, m[k : k + 1], r2), drawn))
        return torch.cat(rows)

    def _draw_at_once(
        self, m: Tensor, phi: Tensor, r2: float, noise: Tensor, z: tuple[Tensor, Tensor]
    ) -> Tensor:
        """The same for m, r2 in the user's terms, back in the prior's."""
        own, y = self.chart.parts[0], self.post.likelihood.each
        xi = m + (r2**0.5 / abs(own.a)) * z[0]
        gap = y - self.A.apply(xi, phi) - per_row(noise, m) * z[1]
        K, s2 = self.A.transfer(phi), noise.square()
        if K is None:
            M = self.matrices(phi)
            gram = r2 * M @ M.mT + torch.diag_embed(s2[:, None].expand(len(m), M.shape[1]))
            moved = M.mT @ torch.linalg.solve(gram, gap.flatten(1)[..., None])
        else:
            v = r2 * K.abs().square() + s2[:, None, None]
            pull = (K.conj() / v)[:, None] * torch.fft.fft2(gap)
            moved = torch.fft.ifft2(pull).real
        return (xi + r2 * moved.reshape(m.shape) - own.b) / own.a

    def matrices(self, phi: Tensor) -> Tensor:
        """A(.; phi) of each row as a matrix, (B, m, d): for a family that is linear in x, and real
        measurements."""
        shape, B = self.A.image_shape, len(phi)
        d = packed_size({"image": shape})
        eye = torch.eye(d, dtype=phi.dtype, device=phi.device).view(d, *shape)
        rows = eye.repeat(B, *(1,) * len(shape))
        seen = self.A.apply(rows, phi.repeat_interleave(d, 0))
        return seen.reshape(B, d, -1).mT

    def expected(self, like: Tensor) -> Tensor:
        """What the prior of the parameters expects, as it lies in u, for each row of a batch:
        (B, *P)."""
        top = torch.tensor(self.belief.sigma_max, dtype=torch.float64, device=like.device)
        shape = self.A.parameters_shape
        centre = self.belief.start(like.new_zeros(1, *shape), top)
        return (self.belief.denoise(centre, top) / self.units[1]).expand(len(like), *shape)

    def noise(self, rows: int) -> Tensor:
        """The stated noise level for each row, (B,)."""
        like = self.post.likelihood
        return torch.full((rows,), like.std, dtype=like.y.real.dtype, device=like.y.device)


def draw_parameters(
    pair: BlindPair,
    x: Tensor,
    phi: Tensor,
    m: Tensor,
    r2: float,
    noise: Tensor,
    rng: Rng,
    moves: int,
) -> Tensor:
    """phi ~ N(phi; m, r2 I) p(y | x, phi) in the coordinates of their own prior, (B, *P), for
    images x (B, *E) in the user's terms and noise levels (B,): exactly where y is linear in phi,
    else by ``moves`` moves of elliptical slice sampling from ``phi``, which leave that law
    unchanged."""
    like = pair.of_parameters(x, noise)
    if pair.A.bilinear:
        return exact_draw(Tilted(like, m, r2), rng)
    for _ in range(moves):
        nu = r2**0.5 * rng.normal(m)
        phi = m + elliptical_slice(lambda f: like.log_prob(m + f), phi - m, nu, rng)
    return phi


class OfParameters(Operator):
    """v -> s_k A(x_k; a v + b) for row k of a batch, the images x (B, *E) being known and s (B,)
    factors."""

    x: Tensor
    factors: Tensor

    def __init__(self, A: Parametric, x: Tensor, own: AffineChart, factors: Tensor) -> None:
        super().__init__(A.parameters_shape, complex_out=A.complex_out)
        self.A, self.own = A, own
        self.register_buffer("x", x)
        self.register_buffer("factors", factors)
        self.__dict__["_out_shape"] = A.out_shape

    def forward(self, x: Tensor) -> Tensor:
        self.check_input(x)
        y = self.A.apply(self.x, self.own.push(x))
        return per_row(self.factors.to(x), y) * y


class LinearInParameters(LinearOperator):
    """v -> s_k A(x_k; a v), as above, for a family that is linear in its parameters."""

    x: Tensor
    factors: Tensor

    def __init__(self, A: Parametric, x: Tensor, own: AffineChart, factors: Tensor) -> None:
        super().__init__(A.parameters_shape, complex_out=A.complex_out)
        self.A, self.a = A, own.a
        self.register_buffer("x", x)
        self.register_buffer("factors", factors)
        self.__dict__["_out_shape"] = A.out_shape

    def forward(self, x: Tensor) -> Tensor:
        self.check_input(x)
        y = self.A.apply(self.x, self.a * x)
        return per_row(self.factors.to(x), y) * y


def blind_pair(post: Posterior) -> BlindPair:
    """The pair of a posterior. Raises ``TypeError`` where the instrument is no family with one
    unknown, or the prior no joint one of the two."""
    A, prior = post.given.A, post.prior
    prior = getattr(prior, "inner", prior)  # within a run it is counted
    if not isinstance(A, Parametric):
        raise TypeError(
            f"this needs an instrument with unknown parameters, an operators.Parametric such as "
            f"BlindConvolution; {A.label} is known"
        )
    if not isinstance(prior, Joint) or not isinstance(post.chart, Pair):
        raise TypeError(
            f"this needs a priors.Joint of image and {A.name}, got {type(prior).__name__}"
        )
    image, belief = (part for part, _ in prior.members)
    return BlindPair(post, image, belief, post.chart, A)


def linear_pair_refusal(post: Posterior, name: str) -> str | None:
    """The same for a method that solves for the image of a known instrument."""
    said = pair_refusal(post, name)
    if said is None and not blind_pair(post).A.linear_in_image:
        return f"{name}: this needs an instrument linear in the image, {post.given.A.label} is not"
    return said


def pair_refusal(post: Posterior, name: str) -> str | None:
    """Why a method cannot take a posterior for a pair; None where it can."""
    try:
        blind_pair(post)
    except TypeError as error:
        return f"{name}: {error}"
    return None


@dataclass
class Drawn:
    """Random numbers that were drawn before, handed out one after the other: what a rule for one
    row takes from a batch's streams."""

    numbers: Iterator[Tensor]

    def normal(self, like: Tensor) -> Tensor:
        return next(self.numbers).to(like)

    def uniform(self, count: int) -> Tensor:
        raise NotImplementedError("these are normal numbers")
