"""What joint restoration of a video gains over its frames one by one, in exact numbers: frames are
Gaussian and move, so that errors and flicker are quadratic forms of laws in closed form."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from reference import F64, Given

import posteriori as po
from posteriori import methods, priors
from posteriori.noise import Gaussian
from posteriori.operators import Identity, temporal_blur

FRAMES, NUMBERS, SIGMA = 6, 2, 0.02
LEVELS = torch.tensor([8.0, 3.0, 1.0, 0.4, 0.15, 0.05, 0.0], dtype=F64)
SIZE = FRAMES * NUMBERS
C = torch.tensor([[1.0, 0.6], [0.6, 0.8]], dtype=F64)


def response(A, method):
    """B (12, m) and Q of the samples x = B y + z, z of covariance Q, of a sampler that is affine in
    y and in its random numbers: one run whose rows have unit vectors for them."""
    prior = priors.Slices(priors.Gaussian(torch.zeros(NUMBERS, dtype=F64), C), FRAMES)
    measured, drawn = math.prod(A.out_shape), SIZE * len(LEVELS)
    ys = torch.zeros(measured + drawn, measured, dtype=F64)
    ys[:measured] = torch.eye(measured, dtype=F64)
    numbers = torch.zeros(measured + drawn, drawn, dtype=F64)
    numbers[measured:] = torch.eye(drawn, dtype=F64)
    like = po.Likelihood(torch.zeros(A.out_shape, dtype=F64), A, Gaussian(SIGMA))
    post = po.Posterior(prior, like).for_rows(ys.view(-1, *A.out_shape))
    rng = Given(numbers)
    state = LEVELS[0] * rng.normal(torch.zeros(len(ys), FRAMES, NUMBERS, dtype=F64))
    state = method.init(post, state, rng)
    for sigma, s in pairwise(LEVELS):
        state, _ = method.step(post, state, sigma, s, rng)
    B, N = method.rows(state).flatten(1).split([measured, drawn])
    return B.T, N.T @ N


def judged(B, Q, M):
    """Expected mean squared error, and flicker (that of the differences of successive frames'
    errors), of truths whose frames have a correlation of 0.9 with the next."""
    k = torch.arange(FRAMES, dtype=F64)
    K = torch.kron(0.9 ** (k[:, None] - k).abs(), C)
    rest = B @ M - torch.eye(SIZE, dtype=F64)
    error = rest @ K @ rest.T + SIGMA**2 * B @ B.T + Q
    D = torch.kron(torch.eye(FRAMES, dtype=F64).diff(dim=0), torch.eye(NUMBERS, dtype=F64))
    return float(error.trace()) / SIZE, float((D @ error @ D.T).trace()) / len(D)


def test_joint_restoration_with_one_noise_halves_error_and_flicker_of_frames_by_themselves():
    """A mean of three frames hides one direction of time. Shared noise is the same in every frame,
    so that nothing of it lies in that direction: samples are the least change that explains y.
    Noise of its own fills the direction, frame by frame."""
    shape = (FRAMES, NUMBERS)
    A = temporal_blur(shape, 3)
    M = po.operators.matrix(A)
    assert int(torch.linalg.matrix_rank(M)) == SIZE - NUMBERS
    converged = {"iterations": 40, "rtol": 1e-13}
    together = response(A, methods.SVI(**converged))
    apart = response(A, methods.SVI(shared=False, **converged))
    # What cannot know of the blur takes y for the frames themselves.
    alone = methods.DDS("matched", transition=methods.DDIM(eta=0.15), **converged)
    frames = response(Identity(shape), alone)
    torch.testing.assert_close(together[0], torch.linalg.pinv(M, rtol=1e-9), rtol=0, atol=1e-7)
    assert float(together[1].abs().max()) < 1e-12
    torch.testing.assert_close(apart[0], together[0], rtol=0, atol=1e-7)
    assert float(apart[1].trace()) > 0.5
    error, flicker = judged(*together, M)
    for other in (apart, frames):
        worse = judged(*other, M)
        assert error < worse[0] / 2
        assert flicker < worse[1] / 2
