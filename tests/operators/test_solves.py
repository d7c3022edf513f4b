"""Solves without a closed form: preconditioners and what they save, what single precision reaches,
rows that are not finite."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from cases import METHODS, OPERATORS
from reference import F64, draw

import posteriori as po
from posteriori import methods
from posteriori import operators as ops
from posteriori.counting import CountedLinearOperator, Counter
from posteriori.linalg import cg, gmres, root_product
from posteriori.operators.base import LinearOperator
from posteriori.priors.base import Prior

F32 = torch.float32
BOX = torch.full((3, 5), 1 / 15, dtype=F64)
BORDERS = ("reflect", "zero", "valid")


def motion(dtype=F64):
    kernel = torch.zeros(5, 5, dtype=dtype)
    kernel[range(5), [0, 1, 1, 2, 3]] = 0.2
    return kernel


def blur(boundary, dtype=F64, kernel=None, sides=(9, 11)):
    kernel = ops.gaussian_kernel(1.2, 7) if kernel is None else kernel
    return ops.Blur((kernel / kernel.sum()).to(dtype), (1, *sides), boundary=boundary)


def radon(dtype=F64, sides=(12, 10)):
    return ops.Radon(sides, torch.linspace(0, 180, 31)[:-1], 1.0).to(dtype)


def columns(f, shape):
    """The matrix of a linear map of batches."""
    n = math.prod(shape)
    return f(torch.eye(n, dtype=F64).view(n, *shape)).flatten(1).T


class Plain(CountedLinearOperator):
    """The same operator, of which nothing is known."""

    def preconditioner(self, r2, s2):
        return None


KNOWN = {f"blur {b}": lambda b=b: blur(b) for b in BORDERS} | {
    "box": lambda: blur("reflect", kernel=BOX),
    "Radon": radon,
}
KNOWN |= {
    "column": lambda: blur("reflect", kernel=BOX[:, :1], sides=(4, 1)),
    "two": lambda: blur("reflect", kernel=BOX[:, :3], sides=(2, 2)),
}


@pytest.mark.parametrize(
    "name",
    [*(name for name, make in OPERATORS.items() if isinstance(make(F64), LinearOperator)), *KNOWN],
)
def test_a_preconditioner_is_hermitian_and_positive(name):
    A = KNOWN[name]() if name in KNOWN else OPERATORS[name](F64)
    for r2, s2 in ((1.0, 0.1), (400.0, 1e-3)):
        offered = A.preconditioner(r2, s2)
        assert (offered is not None) or name not in KNOWN
        if offered is not None:
            P = columns(offered.near, A.in_shape if offered.images else A.out_shape)
            torch.testing.assert_close(P, P.T, rtol=1e-9, atol=1e-9 * float(P.abs().max()))
            assert float(torch.linalg.eigvalsh((P + P.T) / 2).min()) > 0


@pytest.mark.parametrize("kernel", [ops.gaussian_kernel(1.2, 7).double(), BOX])
@pytest.mark.parametrize("sides", [(9, 12), (5, 4)])
@pytest.mark.parametrize(("r2", "s2"), [(1.0, 0.1), (6400.0, 1e-4)])
def test_under_reflection_all_eigenvalues_lie_between_a_quarter_and_one(kernel, sides, r2, s2):
    A = blur("reflect", kernel=kernel, sides=sides)
    M = columns(lambda b: r2 * A(A.adjoint(b)) + s2 * b, A.out_shape)
    values = torch.linalg.eigvals(columns(A.preconditioner(r2, s2).near, A.out_shape) @ M)
    assert float(values.imag.abs().max()) < 1e-6
    assert float(values.real.min()) > 0.25 - 1e-6
    assert float(values.real.max()) < 1 + 1e-6


def off(A, u, b, r2, s2):
    """The error of r2 A^H (r2 A A^H + s2 I)^-1 b, root mean square in standard deviations of x
    given y: e^T (I / r2 + A^H A / s2) e."""
    M = ops.matrix(A)
    precision = torch.eye(M.shape[1], dtype=F64) / r2 + M.T @ M / s2
    e = (r2 * u.double()).flatten(1) - torch.linalg.solve(
        precision, M.T @ b.double().flatten(1).T / s2
    ).T
    return float(((e @ precision) * e).sum(1).max() / M.shape[1]) ** 0.5


@pytest.mark.parametrize("name", [*KNOWN, "motion"])
@pytest.mark.parametrize(("r2", "s2"), [(1.0, 0.1), (1.0, 4e-4), (400.0, 4e-4)])
def test_the_answer_is_the_dense_one_within_a_share_of_what_is_not_known(name, r2, s2):
    A = blur("zero", kernel=motion()) if name == "motion" else KNOWN[name]()
    b = A(r2**0.5 * draw(2, *A.in_shape)) + s2**0.5 * draw(2, *A.out_shape, seed=1)
    # What is seen over its noise: an error relative to it is asked for, and rounding is relative to
    # it.
    seen = float(b.norm()) / (s2 * len(b) * math.prod(A.in_shape)) ** 0.5
    assert off(A, ops.gain(A, b, r2, s2), b, r2, s2) < max(1e-5, 1e-7 * seen)
    torch.testing.assert_close(
        ops.gain(A, b, r2, s2), A.adjoint(ops.solve(A, b, r2, s2)), rtol=1e-3, atol=1e-5
    )
    assert off(A, ops.gain(A.to(F32), b.float(), r2, s2), b, r2, s2) < max(0.01, 1e-3 * seen)


@pytest.mark.parametrize("name", ["reflect", "zero", "valid", "Radon"])
def test_a_preconditioner_saves_operator_calls(name):
    """Of an image of 32 x 32 numbers, the calls for the same answer: at most a fifth under
    reflection, a third elsewhere."""
    kernel = ops.gaussian_kernel(2.0)
    A = (
        radon(sides=(32, 32))
        if name == "Radon"
        else blur(name, kernel=kernel, sides=(32, 32), dtype=F64)
    )
    A, r2, s2 = A.to(F32), 1.0, 4e-4 * (100.0 if name == "Radon" else 1.0)
    b = A(draw(1, *A.in_shape, dtype=F32)) + s2**0.5 * draw(1, *A.out_shape, dtype=F32, seed=1)
    calls = []
    for kind in (CountedLinearOperator, Plain):
        counter = Counter()
        ops.gain(kind(A, counter), b, r2, s2)
        calls.append(counter.calls["operator"])
    assert calls[0] * (5 if name == "reflect" else 3) < calls[1], calls


def picture(A, sigma=0.02, dtype=F32):
    """Images of a smooth Gaussian prior seen by A."""
    place = torch.stack(
        torch.meshgrid(*(torch.arange(n, dtype=F64) for n in A.in_shape[-2:]), indexing="ij"), -1
    ).flatten(0, 1)
    covariance = 0.25 * torch.exp(-torch.cdist(place, place).square() / 18) + 1e-3 * torch.eye(
        len(place), dtype=F64
    )
    prior = po.priors.Gaussian(torch.zeros(A.in_shape, dtype=dtype), covariance.to(dtype))
    y = A(prior.sample(1, 0))[0] + sigma * draw(*A.out_shape, dtype=dtype, seed=1)
    return po.Posterior(prior, po.Likelihood(y, A, po.noise.Gaussian(sigma)))


@pytest.mark.parametrize(
    "method", [methods.PiGDM(), methods.DMPS(), methods.REDDiff(), methods.DiffPIR()]
)
@pytest.mark.parametrize("name", ["reflect", "valid", "zero", "motion", "Radon"])
def test_methods_end_at_their_defaults_in_single_precision(method, name):
    sides = (12, 12)
    if name == "Radon":
        A = radon(F32, sides)
        A = ops.Compose(A, ops.Identity(sides)) if isinstance(method, methods.DMPS) else A
    elif name == "motion":
        A = blur("reflect", F32, motion(F32), sides)
    else:
        A = blur(name, F32, None, sides)
    post = picture(A)
    run = po.sample(post, method, n=2, steps=6)
    assert run.status == (po.run.Status(),) * 2
    dense = ops.Dense(ops.matrix(A).float(), A.in_shape)
    like = po.Likelihood(post.likelihood.y.flatten(), dense, po.noise.Gaussian(0.02))
    exact = po.sample(po.Posterior(post.prior, like), method, n=2, steps=6)
    assert float((run.samples - exact.samples).norm() / exact.samples.norm()) < 0.1


def test_a_kernel_without_a_preconditioner_ends_in_single_precision_too():
    kernel = torch.zeros(9, 9)
    kernel[range(9), [i * 2 // 3 for i in range(9)]] = 1 / 9
    A = blur("reflect", F32, kernel, (32, 32))
    r2, s2 = 400.0, 4e-4
    x = 20 * torch.nn.functional.interpolate(
        draw(1, 1, 6, 6, dtype=F32), size=(32, 32), mode="bicubic"
    )
    b = A(x) + 0.02 * draw(1, *A.out_shape, dtype=F32, seed=1)
    u = ops.gain(A, b, r2, s2)
    assert off(A, u, b, r2, s2) < 0.5
    # 20 standard deviations of the prior are the scale on which the image is not known without y.
    assert off(A, 0 * u, b, r2, s2) > 100


def test_single_precision_is_done_where_rounding_ends_and_not_before():
    """Without any help, at a condition of 1e6: the residual that rounding leaves is accepted, an
    answer that is wrong is not."""
    M = torch.diag(torch.logspace(-6, 0, 7, dtype=F32).repeat(2))
    A, b = ops.Dense(M.sqrt()), torch.ones(1, 14)
    A.spectrum = lambda: None
    v = ops.solve(A, b, 1e4, 1e-4)
    residual = 1e4 * A(A.adjoint(v)) + 1e-4 * v - b
    assert 1e-4 * float(b.norm()) < float(residual.norm()) < 1e-2 * float(b.norm())
    torch.testing.assert_close(v, b / (1e4 * M.diagonal() + 1e-4), rtol=0.02, atol=0)
    with pytest.raises(ops.SolveError, match="no convergence"):
        ops.solve(A, b, 1e4, 1e-4, max_iter=3)
    with pytest.raises(ops.SolveError, match="no convergence"):
        ops.solve(Plain(blur("reflect"), Counter()), draw(1, 1, 9, 11), 1.0, 1e-6, max_iter=20)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_row_that_is_not_finite_stays_alone(bad):
    M = torch.diag(torch.linspace(1, 5, 6, dtype=F64))
    b = draw(3, 6)
    b[1, 2] = bad
    for f in (
        lambda b: cg(lambda v: v @ M, b, max_iter=20, rtol=1e-10).x,
        lambda b: (
            cg(
                lambda v: v @ M,
                b,
                max_iter=20,
                rtol=1e-10,
                precondition=lambda r: r / 2,
                energy=True,
            ).x
        ),
        lambda b: gmres(lambda v: v @ M, b, max_iter=6, rtol=1e-10).x,
        lambda b: root_product(lambda v: v @ M, b, iterations=6),
    ):
        out = f(b)
        assert not bool(out[1].isfinite().any())
        torch.testing.assert_close(out[[0, 2]], f(b[[0, 2]]), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    "name",
    [name for name, make in OPERATORS.items() if isinstance(make(F64), LinearOperator)] + [*KNOWN],
)
def test_no_question_lets_a_row_that_is_not_finite_spoil_others(name):
    A = KNOWN[name]() if name in KNOWN else OPERATORS[name](F64)
    b = draw(3, *A.out_shape, dtype=torch.complex128 if A.complex_out else F64)
    b[1] = math.nan
    for f in (
        lambda b: ops.solve(A, b, 1.0, 0.5),
        lambda b: ops.gain(A, b, 1.0, 0.5),
        lambda b: ops.pinv(A, b),
    ):
        out = f(b)
        assert name.startswith("Null") or not bool(out[1].abs().isfinite().all())
        torch.testing.assert_close(
            out[[0, 2]], f(torch.where(b.isnan(), 1.0, b))[[0, 2]], rtol=1e-12, atol=1e-12
        )


class Sick(Prior):
    """A prior whose denoiser fails once, for one row of the batch."""

    def __init__(self, inner, level, row):
        limits = {
            "sigma_max": inner.sigma_max,
            "sigma_min": inner.sigma_min,
            "max_std": inner.max_std,
        }
        super().__init__(inner.shape, range=inner.range, variance=inner.variance, **limits)
        self.inner, self.level, self.row = inner, float(level), row

    def spoil(self, x0, sigma):
        if float(sigma) == self.level and len(x0) > 1:
            x0 = torch.where((torch.arange(len(x0)) == self.row).view(-1, 1, 1, 1), math.nan, x0)
        return x0

    def denoise(self, x, sigma):
        return self.spoil(self.inner.denoise(x, sigma), sigma)

    def linearize(self, x, sigma):
        x0, pull = self.inner.linearize(x, sigma)
        return self.spoil(x0, sigma), lambda u: self.spoil(pull(u), sigma)

    def start(self, z, sigma):
        return self.inner.start(z, sigma)


# Published presets take the same paths.
@pytest.mark.parametrize("name", [name for name in METHODS if not name.endswith("published")])
def test_one_row_that_fails_leaves_the_others_as_they_are(name):
    method = METHODS[name]
    A = ops.Blur(motion(), (1, 6, 7), boundary="reflect")
    prior = po.priors.Gaussian(torch.zeros(1, 6, 7, dtype=F64), 0.5)
    like = po.Likelihood(A(prior.sample(1, 0))[0], A, po.noise.Gaussian(0.3))
    levels = po.grid.karras(4, prior.sigma_max, 0.1)
    post = po.Posterior(Sick(prior, levels[2], -1), like)
    if method.refuses(post) or method.group > 1 or name.startswith(("ScorePriorVI", "CBG")):
        pytest.skip(
            "takes an operator with a spectrum, a closed form, or rows that belong together"
        )
    well = po.sample(post, method, n=3, grid=levels, seed=1)
    with pytest.warns(UserWarning, match="1 of 3 rows are left out"):
        ill = po.sample(
            po.Posterior(Sick(prior, levels[2], 1), like), method, n=3, grid=levels, seed=1
        )
    assert [s.ok for s in ill.status] == [True, False, True]
    torch.testing.assert_close(ill.samples, well.samples[[0, 2]], rtol=1e-6, atol=1e-8)


def test_visibilities_of_many_levels_have_the_exact_inverse_of_a_small_image():
    """(r2 A A^H + s2 I)^-1 b of the operator and of its matrix over real and imaginary parts, where
    weights span four decades and conjugate gradients end far from it in single precision."""
    see = ops.ApertureSynthesis(
        draw(40, seed=1) * 2e9, draw(40, seed=2) * 2e9, (1, 4, 5), 20.0, "triangle"
    )
    A = ops.Weighted(see, torch.logspace(0, 4, 40, dtype=F64))
    M = torch.view_as_real(A(torch.eye(20, dtype=F64).view(20, 1, 4, 5))).flatten(1).T
    b = torch.complex(draw(2, 40), draw(2, 40, seed=3))
    stacked = torch.view_as_real(b).flatten(1)
    for r2, s2 in ((1.0, 0.1), (0.04, 2500.0)):
        whole = r2 * M @ M.T + s2 * torch.eye(80, dtype=F64)
        want = torch.linalg.solve(whole, stacked.T).T.view(2, 40, 2)
        near = A.preconditioner(r2, s2).near(b)
        scale = float(want.abs().max())
        torch.testing.assert_close(torch.view_as_real(near), want, rtol=0, atol=1e-5 * scale)
        found = ops.solve(copy.deepcopy(A).to(F32), b.to(torch.complex64), r2, s2)
        torch.testing.assert_close(
            torch.view_as_real(found).double(), want, rtol=0, atol=1e-3 * scale
        )


def test_an_exact_inverse_is_offered_for_small_images_only():
    u = draw(3, seed=1) * 2e9
    large = ops.Weighted(ops.ApertureSynthesis(u, u, (1, 65, 64), 20.0), torch.ones(3, dtype=F64))
    assert large.preconditioner(1.0, 1.0) is None
