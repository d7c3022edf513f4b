"""``x.conj()`` and ``x.conj().imag`` are conjugated or negated by torch when they are read: results
must be those of plain numbers."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest
import torch
from cases import METHODS, NOISES, OPERATORS, PRIORS, complex_picture
from torch.testing import assert_close

import posteriori as po
from posteriori import evaluation as ev
from posteriori.evaluation import discrepancies
from posteriori.operators.base import LinearOperator
from posteriori.rng import Streams
from posteriori.run import Run, Status, read_arrays, write_arrays
from posteriori.testing import check_operator

F64, C128 = torch.float64, torch.complex128


def draw(*shape, seed=0, dtype=C128):
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def plain(x):
    return x.resolve_conj().resolve_neg().clone()


def negated(x):
    """The real x as torch keeps the imaginary part of a conjugate: -x in memory, with a mark."""
    lazy = torch.complex(torch.zeros_like(x), -x).conj().imag
    assert lazy.is_neg()
    return lazy


def pairs(*shape):
    """A lazily conjugated tensor and a lazily negated one."""
    z = draw(*shape)
    assert z.conj().is_conj()
    return z.conj(), negated(z.real)


def run_of(x):
    return Run(
        x,
        torch.zeros(len(x), dtype=F64),
        None,
        (Status(),) * len(x),
        {},
        {},
        0.0,
        {"method": "Made"},
        (),
    )


def complex_posterior(y):
    A = po.operators.Dense(draw(3, 6, seed=2))
    prior = po.priors.ComplexImages(po.priors.Gaussian(torch.zeros(2, 6, dtype=F64), 0.5))
    return po.Posterior(prior, po.Likelihood(y, A, po.noise.ComplexGaussian(sigma_per_channel=0.3)))


def real_posterior(y):
    A = po.operators.Dense(draw(3, 6, seed=2, dtype=F64))
    return po.Posterior(
        po.priors.Gaussian(torch.zeros(6, dtype=F64), 1.0),
        po.Likelihood(y, A, po.noise.Gaussian(0.3)),
    )


def posterior(y):
    return complex_posterior(y) if y.is_complex() else real_posterior(y)


MOMENTS = ev.exact_posterior(real_posterior(torch.ones(3, dtype=F64)))
KERNEL = po.operators.gaussian_kernel(1.0)
# Function -> whether it takes complex numbers, the shape of its argument, the call.
CALLS = {
    "affine_probe": (
        True,
        (3,),
        lambda y: ev.affine_probe(posterior(y), po.methods.MMPS(iterations=12, rtol=1e-13), 3),
    ),
    "best_linear": (
        False,
        (1, 12, 12),
        lambda y: ev.best_linear(y, po.operators.Blur(KERNEL, (1, 12, 12)), 0.1, y),
    ),
    "best_wiener": (False, (1, 12, 12), lambda y: ev.best_wiener(y, KERNEL, 0.1, y)),
    "coverage": (True, (9, 6), lambda x: [c.covered for c in ev.coverage(x, x[0])]),
    "effective_size": (False, (9,), ev.effective_size),
    "exact_posterior": (False, (3,), lambda y: ev.exact_posterior(real_posterior(y)).mean),
    "gaussian_kl": (
        False,
        (6,),
        lambda m: ev.gaussian_kl(m, torch.eye(6), torch.zeros(6), torch.eye(6)),
    ),
    "mean_error": (False, (9, 6), lambda x: ev.mean_error(x, MOMENTS)),
    "moments": (True, (9, 6), ev.moments),
    "oracle": (False, (3,), lambda y: ev.oracle(real_posterior(y)).prior.after.mean),
    "psnr": (True, (2, 6), lambda x: ev.psnr(x, 2 * plain(x[0]), 1.0)),
    "rank_counts": (True, (9, 6), lambda x: ev.rank_counts(x, x[0])),
    "ranks": (True, (9, 6), lambda x: ev.ranks(x, x[0])),
    "resample": (True, (9, 6), lambda x: ev.resample(x, torch.arange(9.0))),
    "sliced_wasserstein": (True, (9, 6), lambda x: ev.sliced_wasserstein(x, x[:4], slices=20)),
    "speckle": (True, (2, 1, 9, 9), ev.speckle),
    "ssim": (False, (2, 1, 12, 12), lambda x: ev.ssim(x, plain(x).flip(0), (-4, 4))),
    "student": (False, (6,), lambda m: ev.student(m, torch.full((6,), 0.5), 5, plain(m).flip(0))),
    "summary": (
        True,
        (9, 6),
        lambda x: ev.summary(
            run_of(x),
            posterior(plain(draw(3)) if x.is_complex() else torch.ones(3, dtype=F64)),
            x[0],
        )["rmse_sample"],
    ),
    "variance_ratio": (False, (9, 6), lambda x: ev.variance_ratio(x, MOMENTS)),
    "wiener": (False, (1, 12, 12), lambda y: ev.wiener(y, KERNEL, 0.1)),
    "central_moment_discrepancy": (
        True,
        (9, 6),
        lambda x: discrepancies.central_moment_discrepancy(x, x[:4]),
    ),
    "ksd": (True, (9, 6), lambda x: discrepancies.ksd(x, lambda z: -z)),
    "mean_distance": (True, (9, 6), discrepancies.mean_distance),
    "mmd": (True, (9, 6), lambda x: discrepancies.mmd(x, x[:4])),
    "rmse": (True, (9, 6), lambda x: discrepancies.rmse(x, x[0])),
}


def test_every_function_of_the_evaluation_is_swept():
    public = {name for name in ev.__all__ if inspect.isfunction(getattr(ev, name))}
    # Two take no images, the third a package and weights that need not be there.
    assert public - {"floor", "share_kept", "lpips"} <= set(CALLS)


@pytest.mark.parametrize("name", CALLS)
def test_evaluation(name):
    complex, shape, call = CALLS[name]
    lazy, real = pairs(*shape)
    for x in (lazy, real) if complex else (real,):
        assert_close(call(x), call(plain(x)), rtol=0, atol=0)


def test_files(tmp_path):
    lazy, real = pairs(4, 6)
    given = {"z": lazy, "x": real, "turned": lazy.mT, "row": real[1]}
    write_arrays(tmp_path / "a.safetensors", given)
    arrays, _ = read_arrays(tmp_path / "a.safetensors")
    for name, value in given.items():
        assert_close(arrays[name], plain(value), rtol=0, atol=0)
    for x in (lazy, real):
        run_of(x).save(tmp_path / str(x.dtype))
        assert_close(Run.load(tmp_path / str(x.dtype)).samples, plain(x), rtol=0, atol=0)


def test_streams():
    for x in pairs(3, 5):
        assert_close(
            Streams(0, range(3)).normal(x), Streams(0, range(3)).normal(plain(x)), rtol=0, atol=0
        )


@pytest.mark.parametrize("name", NOISES)
def test_laws(name):
    law, complex, level = NOISES[name]
    clean = pairs(3, 5)[0] if complex else negated(level + 0.1 * draw(3, 5).real)
    y = law.sample(plain(clean), Streams(1, range(3)))
    assert_close(law.sample(clean, Streams(1, range(3))), y, rtol=0, atol=0)
    lazy = y.conj().conj_physical() if complex else negated(y)
    for f in (law.log_prob, law.score):
        assert_close(f(lazy, clean), f(y, plain(clean)), rtol=0, atol=0)


def test_likelihoods():
    for y in pairs(3):
        lazy, usual = posterior(y).likelihood, posterior(plain(y)).likelihood
        x = pairs(4, 6)[0 if y.is_complex() else 1]
        for one, two in ((lazy, usual), (lazy.widen(0.5), usual.widen(0.5))):
            for f in ("residual", "log_prob", "score", "chi2"):
                assert_close(getattr(one, f)(x), getattr(two, f)(plain(x)), rtol=0, atol=0)


@pytest.mark.parametrize("name", OPERATORS)
def test_operators(name):
    A = OPERATORS[name](F64)
    x = pairs(2, *A.in_shape)[0 if A.complex_in else 1]
    assert_close(A(x), A(plain(x)))
    y = pairs(2, *A.out_shape)[0 if A.complex_out else 1]
    assert_close(A.linearize(x)[1](y), A.linearize(plain(x))[1](plain(y)))
    if isinstance(A, LinearOperator):
        assert_close(A.adjoint(y), A.adjoint(plain(y)))
        assert_close(po.operators.solve(A, y, 1.0, 0.5), po.operators.solve(A, plain(y), 1.0, 0.5))


@pytest.mark.parametrize("name", PRIORS)
def test_priors(name):
    case = PRIORS[name]
    prior = case(F64)
    x, sigma = pairs(2, *prior.shape)[0 if prior.complex else 1], torch.tensor(0.7, dtype=F64)
    x = x if prior.complex or not name.startswith("UNet") else negated(plain(x).float()).double()
    assert_close(prior.denoise(x, sigma), prior.denoise(plain(x), sigma))
    _, pull = prior.linearize(x, sigma)
    assert_close(pull(x), prior.linearize(plain(x), sigma)[1](plain(x)))


class Lazy(LinearOperator):
    """A complex matrix whose products are conjugates of what is held in memory."""

    def __init__(self):
        super().__init__((6, 5), complex_in=True, complex_out=True)
        self.matrix = draw(7, 30, seed=2) / 5

    def forward(self, x):
        self.check_input(x)
        return (x.flatten(1).conj() @ self.matrix.to(x).mH).conj()

    def adjoint(self, y):
        self.check_measurement(y)
        return (y.conj() @ self.matrix.to(y)).conj().view(-1, 6, 5)


class Plain(Lazy):
    def forward(self, x):
        return plain(super().forward(x))

    def adjoint(self, y):
        return plain(super().adjoint(y))


def test_an_operator_that_returns_lazy_numbers_keeps_its_contract():
    assert Lazy()(draw(2, 6, 5)).is_conj()
    check_operator(Lazy())


@pytest.mark.parametrize(
    "name", [name for name, method in METHODS.items() if name == type(method).__name__]
)
def test_methods(name, tmp_path):
    """The same samples from an operator and a measurement that are lazy, also by way of a
    folder."""
    method, prior = METHODS[name], complex_picture().prior
    law = po.noise.ComplexGaussian(sigma_per_channel=0.2)
    y = Lazy()(draw(1, 6, 5))[0]
    lazy, usual = (
        po.Posterior(prior, po.Likelihood(v, A, law)) for v, A in ((y, Lazy()), (plain(y), Plain()))
    )
    if method.refuses(usual):
        assert method.refuses(lazy)
        return
    run = po.sample(
        lazy, method, n=method.returned, steps=2, folder=tmp_path / "run", checkpoint_seconds=0
    )
    assert_close(
        run.samples, po.sample(usual, method, n=method.returned, steps=2).samples, rtol=0, atol=0
    )


def test_the_numbers_of_a_tensor_are_read_in_one_place():
    """``torch.view_as_real`` refuses lazy numbers: where it is called they have been resolved."""
    root = Path(po.__file__).parent
    calls = {
        f"{path.relative_to(root)}: {line.strip()}"
        for path in root.rglob("*.py")
        for line in path.read_text().splitlines()
        if "view_as_real(" in line and "resolve_conj()" not in line
    }
    assert not calls, "use linalg.real_view"
