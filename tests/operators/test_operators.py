"""Every operator against its contract, against dense linear algebra, and against what is known
about its instrument."""

from __future__ import annotations

import copy
import itertools
import math
import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from cases import OPERATORS
from PIL import Image
from reference import draw
from skimage.transform import radon

import posteriori as po
from posteriori import linalg
from posteriori import operators as ops
from posteriori.counting import Counter, counted
from posteriori.linalg import cg
from posteriori.noise import Gaussian
from posteriori.operators.base import LinearOperator, Operator, Spectrum, closed_spectrum
from posteriori.rng import Streams
from posteriori.testing import check_operator

LINEAR = [
    name for name, make in OPERATORS.items() if isinstance(make(torch.float64), LinearOperator)
]
double = {"dtype": torch.float64}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["double", "single"])
@pytest.mark.parametrize("name", OPERATORS)
def test_the_contract(name, dtype):
    check_operator(OPERATORS[name](dtype), dtype=dtype)


@pytest.mark.parametrize("name", OPERATORS)
def test_an_operator_takes_either_precision_whatever_it_holds(name):
    A = OPERATORS[name](torch.float32)
    kept = {key: value.clone() for key, value in A.state_dict().items()}
    wide = copy.deepcopy(A).to(torch.float64)
    assert all(value.dtype == kept[key].dtype for key, value in A.state_dict().items())
    for key, value in wide.state_dict().items():
        before = kept[key]
        want = (
            torch.complex128
            if before.is_complex()
            else torch.float64
            if before.is_floating_point()
            else before.dtype
        )
        assert value.dtype == want, key
        torch.testing.assert_close(value, before.to(want), rtol=0, atol=0)
    for same in (copy.deepcopy(A).double(), copy.deepcopy(A).double().float().double()):
        torch.testing.assert_close(same.state_dict(), wide.state_dict(), rtol=1e-7, atol=1e-7)
    for B in (A, wide):
        for dtype in (torch.float32, torch.float64):
            x = B.probe(lambda *size, dtype, device: draw(*size, dtype=dtype), rows=2, dtype=dtype)
            y = B(x)
            assert y.real.dtype == dtype
            if isinstance(B, LinearOperator):
                assert B.adjoint(y).dtype == x.dtype
                assert ops.solve(B, y, 1.0, 1.0).dtype == y.dtype
                assert ops.pinv(B, y).dtype == x.dtype


def dense(A):
    """A as a real matrix: complex numbers as pairs, so that one reference serves operators that are
    linear over the reals only."""

    def real(t):
        return (torch.view_as_real(t) if t.is_complex() else t).flatten(1)

    n = math.prod(A.in_shape)
    if A.complex_in:
        basis = torch.view_as_complex(torch.eye(2 * n, dtype=torch.float64).view(2 * n, n, 2)).view(
            2 * n, *A.in_shape
        )
    else:
        basis = torch.eye(n, dtype=torch.float64).view(n, *A.in_shape)
    return real(A(basis)).T, real


@pytest.mark.parametrize("name", LINEAR)
def test_the_questions_against_dense_linear_algebra(name):
    A = OPERATORS[name](torch.float64)
    M, real = dense(A)
    gram = M @ M.T
    eye = torch.eye(len(M), dtype=torch.float64)
    top = float(torch.linalg.matrix_norm(M, 2))
    b = draw(3, *A.out_shape, dtype=torch.complex128 if A.complex_out else torch.float64, seed=3)
    assert ops.norm2(A) == pytest.approx(top, rel=1e-6, abs=1e-12)
    for r2, s2 in (
        (1.0, 0.1),
        (0.0, 2.0),
        (torch.tensor(50.0), torch.tensor(0.5, dtype=torch.float64)),
    ):
        exact = torch.linalg.solve(float(r2) * gram + float(s2) * eye, real(b).T).T
        torch.testing.assert_close(real(ops.solve(A, b, r2, s2)), exact, rtol=1e-6, atol=1e-8)
        # A complex number is one measured number, two real ones.
        logs = torch.linalg.slogdet(float(r2) * gram + float(s2) * eye).logabsdet / (
            2 if A.complex_out else 1
        )
        torch.testing.assert_close(ops.log_det(A, r2, s2), logs, rtol=1e-9, atol=1e-9)
    # The limit s2 = 0 is the pseudo-inverse of r2 A A^H, on b in the range of A A^H.
    inside = A(A.adjoint(b))
    exact = torch.linalg.pinv(0.7 * gram, rtol=1e-11, hermitian=True) @ real(inside).T
    if A.spectrum() is not None:
        found = ops.solve(A, inside, 0.7, 0.0)
        torch.testing.assert_close(real(A(A.adjoint(found))).T, gram @ exact, rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(
            real(ops.pinv(A, b)).T,
            torch.linalg.pinv(M, rtol=1e-6) @ real(b).T,
            rtol=1e-6,
            atol=1e-6 / max(top, 1e-9),
        )
    else:
        found = ops.solve(A, inside, 0.7, 0.0, max_iter=20_000)
        torch.testing.assert_close(real(A(A.adjoint(found))).T, gram @ exact, rtol=1e-6, atol=1e-6)
        damped = torch.linalg.solve(
            M.T @ M + (1e-3 * top) ** 2 * torch.eye(M.shape[1], dtype=torch.float64),
            M.T @ real(b).T,
        )
        torch.testing.assert_close(
            real(ops.pinv(A, b)).T, damped, rtol=1e-4, atol=1e-4 * float(damped.abs().max())
        )
    if not A.complex_in:
        whole = ops.matrix(A)
        if A.complex_out:
            whole = torch.view_as_real(whole).transpose(1, 2).reshape(M.shape)
        torch.testing.assert_close(whole, M)
    else:
        x = draw(1, *A.in_shape, dtype=torch.complex128)
        torch.testing.assert_close((ops.matrix(A) @ x.flatten())[None], A(x).flatten(1))


def test_r2_and_s2_cannot_both_vanish():
    for r2, s2 in ((0.0, 0.0), (-1.0, 2.0), (1.0, math.nan)):
        with pytest.raises(ValueError, match="not both 0"):
            ops.solve(ops.Identity((3,)), torch.ones(1, 3), r2, s2)


# The contract must notice what is wrong.


class Wrapped(LinearOperator):
    """An operator given by functions, as users write them."""

    def __init__(
        self, shape, forward, adjoint=None, spectrum=None, complex_in=False, complex_out=False
    ):
        super().__init__(shape, complex_in=complex_in, complex_out=complex_out)
        self.go, self.back, self.known = forward, adjoint, spectrum

    def forward(self, x):
        self.check_input(x)
        return self.go(x)

    def adjoint(self, y):
        return super().adjoint(y) if self.back is None else self.back(y)

    def spectrum(self):
        return self.known


def half(x):
    return F.interpolate(x, scale_factor=0.5, mode="bilinear", align_corners=False)


def twice(y):
    return F.interpolate(y, scale_factor=2, mode="bilinear", align_corners=False)


def test_a_function_alone_gets_its_exact_adjoint():
    check_operator(Wrapped((1, 8, 6), half))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_interpolating_up_is_not_the_adjoint_of_interpolating_down(dtype):
    y = torch.zeros(1, 4, 4, dtype=dtype)
    with pytest.raises(
        ops.AdjointError, match=r"constant probes <A x, u> = 16 but <x, A\^H u> = 64 \(ratio 4\)"
    ):
        po.Likelihood(y, Wrapped((1, 8, 8), half, twice), Gaussian(0.1))
    po.Likelihood(y, Wrapped((1, 8, 8), half), Gaussian(0.1))


def test_a_constant_ratio_is_named_with_its_cure():
    M = draw(5, 7)
    quarter = Wrapped((7,), lambda x: x @ M.T.to(x), lambda y: 0.25 * y @ M.to(y))
    with pytest.raises(ops.AdjointError, match=r"constant 0\.25: divide `adjoint` by it"):
        check_operator(quarter)


def averaging(x):
    return x - x.mean(0, keepdim=True)


@pytest.mark.parametrize(
    ("A", "message"),
    [
        (Wrapped((6,), averaging), "rows alone and in a batch of 3"),
        (Wrapped((6,), lambda x: x + 1.0), "A\\(2 x - 3 v\\)"),
        (Wrapped((6,), lambda x: x.float()), "float32"),
        (Wrapped((6,), lambda x: x.mul_(1.0).add_(1.0)), "changed in place"),
        (Wrapped((6,), lambda x: x.roll(1, 1), lambda y: y), "ratio"),
        (
            Wrapped(
                (6,), lambda x: 1j * x, complex_in=True, complex_out=True, adjoint=lambda y: 1j * y
            ),
            "ratio -1",
        ),
        (Wrapped((6,), torch.conj_physical, complex_in=True, complex_out=True), "i A x"),
        (
            Wrapped((6,), lambda x: 3 * x, spectrum=ops.Identity((6,)).spectrum()),
            "U s V\\^H x and A x",
        ),
        (
            Wrapped((6,), lambda x: 0 * x, spectrum=Spectrum(-torch.ones(6), *[lambda c: c] * 4)),
            "singular value is -1",
        ),
        (
            Wrapped(
                (6,),
                lambda x: x,
                spectrum=Spectrum(torch.ones(6), *[lambda c: 2 * c, lambda c: c / 2] * 2),
            ),
            "norms before and after",
        ),
    ],
)
def test_the_contract_notices(A, message):
    with pytest.raises((AssertionError, ops.AdjointError), match=message):
        check_operator(A)


def test_the_contract_notices_a_shape_that_is_not_checked():
    class Careless(Operator):
        def forward(self, x):
            return x**2

    class Broken(Operator):
        def forward(self, x):
            self.check_input(x)
            return x.detach() * x

    with pytest.raises(AssertionError, match="were not refused; call self.check_input"):
        check_operator(Careless((4,)))
    with pytest.raises(AssertionError, match="finite differences"):
        check_operator(Broken((4,)))


def test_a_unit_norm_is_measured_not_trusted():
    claims = Wrapped((6,), lambda x: 3 * x)
    claims.norm2 = claims.norm = 1.0
    assert ops.norm2(claims) == pytest.approx(3.0)


def downsampling_pair(factor):
    return Wrapped(
        (3, 30, 30),
        lambda x: F.interpolate(x, scale_factor=1 / factor, mode="bicubic", align_corners=False),
        lambda y: F.interpolate(y, scale_factor=factor, mode="bicubic", align_corners=False),
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_solve_with_a_wrong_adjoint_raises_whatever_the_seed(dtype):
    A = downsampling_pair(3)
    with pytest.raises(ops.AdjointError, match="ratio 9"):
        po.Likelihood(torch.zeros(3, 10, 10, dtype=dtype), A, Gaussian(0.1))
    for seed in range(10):
        x = draw(1, 3, 30, 30, dtype=dtype, seed=seed)
        unchecked = po.Likelihood(A(x)[0], A, Gaussian(1.0), check=False)
        with pytest.raises(ops.SolveError, match=r"Wrapped .* not the transpose"):
            ops.solve(unchecked.linear, A(x), 1e4, 1.0)
        with pytest.raises(ops.SolveError):
            ops.pinv(A, A(x))


def test_a_solve_that_cannot_finish_says_so():
    M = torch.diag(torch.logspace(0, -8, 60, dtype=torch.float64))
    A = Wrapped((60,), lambda x: x @ M.T.to(x))
    with pytest.raises(
        ops.SolveError,
        match=r"Wrapped \(r2=1, s2=0\) stopped in row 0 after 20 iterations .* no convergence",
    ):
        ops.solve(A, torch.ones(1, 60, dtype=torch.float64), 1.0, 0.0, max_iter=20)


def test_errors_in_a_run_name_the_operator_that_the_user_gave():
    """A run counts calls through a wrapper; neither refusals nor solves speak of it."""
    M = torch.diag(torch.logspace(0, -8, 60, dtype=torch.float64))
    A = Wrapped((60,), lambda x: x @ M.T.to(x))
    prior = po.priors.Gaussian(torch.zeros(60, dtype=torch.float64), 1.0)
    post = po.Posterior(
        prior, po.Likelihood(torch.ones(60, dtype=torch.float64), A, Gaussian(1e-9))
    )
    twin = counted(post, Counter())
    assert twin.likelihood.A.label == A.label == "Wrapped"
    for call in (
        lambda A: A.check_input(torch.zeros(1, 59)),
        lambda A: A.check_measurement(torch.zeros(1, 59)),
        closed_spectrum,
    ):
        with pytest.raises((ValueError, TypeError)) as found:
            call(twin.likelihood.A)
        assert "Wrapped" in str(found.value)
        assert "Counted" not in str(found.value)
    with pytest.raises(ops.SolveError, match="on Wrapped"):
        ops.solve(
            twin.likelihood.linear, torch.ones(1, 60, dtype=torch.float64), 1.0, 0.0, max_iter=20
        )


def test_a_solve_near_a_minimum_does_not_cry_wolf():
    # The residual of a least-squares image is nearly orthogonal to the range: A^H b is all
    # rounding.
    A = ops.Radon((24, 24), range(0, 180, 4), 1.0)
    x = torch.rand(1, 24, 24, generator=torch.Generator().manual_seed(0))
    y = A(x) + 0.5 * draw(*A(x).shape, dtype=torch.float32)
    best = ops.pinv(A, y)
    b = y - A(best)
    v = ops.solve(A, b, 1.0, 1.0)
    torch.testing.assert_close(A(A.adjoint(v)) + v, b, rtol=1e-3, atol=1e-3)


# Masks.


def test_noise_lives_only_where_something_was_measured():
    mask = torch.zeros(1, 8, 8, dtype=torch.bool)
    mask[..., :4] = True
    A = ops.Mask(mask)
    noisy = Gaussian(0.1).sample(A(torch.zeros(5, 1, 8, 8)), Streams(0, range(5)))
    assert noisy.shape == (5, 32)
    picture = A.adjoint(noisy)
    assert torch.equal(picture[..., 4:], torch.zeros(5, 1, 8, 4))
    assert float(picture[..., :4].std()) == pytest.approx(0.1, rel=0.2)
    assert bool((picture[..., :4] != 0).all())


def test_noise_in_the_coordinates_of_a_blur_is_white_noise_of_the_same_level():
    A = ops.Blur(draw(3, 3), (1, 8, 8))
    s = A.spectrum()
    e = s.U(0.1 * draw(4000, 64))
    torch.testing.assert_close(
        e.flatten(1).T @ e.flatten(1) / 4000,
        0.01 * torch.eye(64, dtype=torch.float64),
        rtol=0,
        atol=5 * 0.01 / math.sqrt(4000),
    )


def test_the_box_hides_the_rows_and_columns_it_says():
    mask = ops.box_mask((16, 16), side=8)
    hidden = (~mask).nonzero()
    assert hidden.min(0).values.tolist() == [4, 4]
    assert hidden.max(0).values.tolist() == [11, 11]
    assert len(hidden) == 64
    assert (~ops.box_mask((3, 16, 20), 5, where=(0, 15))).nonzero()[-1].tolist() == [2, 4, 19]
    a, b, again = (ops.box_mask((30, 40), 7, where="random", seed=seed) for seed in (1, 2, 1))
    assert int((~a).sum()) == 49
    assert torch.equal(a, again)
    assert not torch.equal(a, b)


def test_a_random_mask_keeps_exactly_its_share():
    a, b, again = (ops.random_mask((3, 10, 11), 0.3, seed) for seed in (1, 2, 1))
    assert int(a.sum()) == 99
    assert torch.equal(a, again)
    assert not torch.equal(a, b)
    assert bool(ops.random_mask((4, 4), 1.0, 0).all())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: ops.Mask(torch.ones(4, 4)),
            "boolean mask, True where observed, got torch.float32",
        ),
        (lambda: ops.Mask(torch.zeros(4, 4, dtype=torch.bool)), "False everywhere; use Null"),
        (
            lambda: ops.Mask(torch.ones(4, 4, dtype=torch.bool), (3, 4, 5)),
            r"\(4, 4\) does not fit images of shape \(3, 4, 5\)",
        ),
        (lambda: ops.random_mask((4, 4), 1.5, 0), "keep=1.5"),
        (lambda: ops.random_mask((4, 4), 0.01, 0), "at least one of 16"),
        (lambda: ops.box_mask((8, 8), 9), "side 9 must fit into 8x8"),
        (lambda: ops.box_mask((8, 8), 3, where="random"), "needs a seed"),
        (lambda: ops.box_mask((8, 8), 3, where=(6, 0)), "row 6, column 0 leaves the 8x8"),
        (lambda: ops.box_mask((8, 8), 3, where="top"), "'top' must be"),
        (lambda: ops.Grey((1, 4, 4)), r"\(3, H, W\), got \(1, 4, 4\)"),
        (lambda: ops.Grey((3, 4, 4), weights=(0.0, 0.0, 0.0)), "not all 0"),
        (lambda: ops.Downsample((1, 10, 12), 4), "factor 4 does not divide 10x12"),
        (
            lambda: ops.Downsample((1, 12, 12), 4, kind="cubic"),
            "kind is 'cubic'; did you mean 'bicubic'",
        ),
        (lambda: ops.Blur(torch.ones(3, 3), (4, 4)), r"\(C, H, W\), got \(4, 4\)"),
        (lambda: ops.Blur(torch.full((3, 3), torch.nan), (1, 4, 4)), "finite real kernel"),
        (lambda: ops.Blur(torch.ones(3, 3), (1, 4, 4), boundary="wrap"), "boundary is 'wrap'"),
        (lambda: ops.gaussian_kernel(0.0), "std must be"),
        (lambda: ops.gaussian_kernel(1.0, 4), "size 4 must be odd"),
        (lambda: ops.ComplexChannels((3, 4, 4)), r"\(2, H, W\), got \(3, 4, 4\)"),
        (
            lambda: ops.MultiCoilFourier(torch.ones(2, 4, 4), torch.ones(4, 4, dtype=torch.bool)),
            "complex sensitivities",
        ),
        (lambda: ops.PhaseRetrieval((1, 4, 4), oversampling=0.5), "oversampling must be"),
        (lambda: ops.Radon((4, 4), [], 1.0), "angles must be"),
        (lambda: ops.Radon((4, 4), [0.0], 0.0), "pixel_mm must be"),
        (lambda: ops.Radon((4, 4), [0.0], 1.0, detectors=0), "detectors must be"),
        (lambda: ops.Stack(), "at least one"),
        (lambda: ops.Stack(ops.Identity((4,)), ops.Identity((5,))), r"\(4,\).*\(5,\)"),
        (lambda: ops.Stack(ops.PhaseRetrieval((1, 4, 4))), "PhaseRetrieval is not linear"),
        (
            lambda: ops.Compose(ops.PhaseRetrieval((1, 4, 4)), ops.Identity((1, 4, 4))),
            "PhaseRetrieval is not linear, use Chain",
        ),
        (
            lambda: ops.Identity((1, 4, 4)) @ ops.Downsample((1, 4, 4), 2),
            r"\(1, 4, 4\).*\(1, 2, 2\)",
        ),
        (lambda: ops.Identity((0, 4)), "positive sides"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(make, message):
    with pytest.raises((ValueError, TypeError), match=message):
        make()


# Blur.


def direct_convolution(x, kernel, index):
    """y(i) = sum_j kernel(j) x(i - j + c), with ``index`` saying what x is beyond its border
    (None for nothing)."""
    H, W = x.shape
    kh, kw = kernel.shape
    y = torch.zeros(H, W, dtype=x.dtype)
    for i in range(H):
        for k in range(W):
            for a in range(kh):
                for b in range(kw):
                    p, q = index(i - a + kh // 2, H), index(k - b + kw // 2, W)
                    if p is not None and q is not None:
                        y[i, k] += kernel[a, b] * x[p, q]
    return y


BORDERS = {
    "circular": lambda i, n: i % n,
    "zero": lambda i, n: i if 0 <= i < n else None,
    "reflect": lambda i, n: min(i % (2 * n - 2), 2 * n - 2 - i % (2 * n - 2)),
    "symmetric": lambda i, n: min(i % (2 * n), 2 * n - 1 - i % (2 * n)),
}


@pytest.mark.parametrize("boundary", BORDERS)
@pytest.mark.parametrize("side", [(3, 3), (2, 5), (5, 4)])
def test_a_blur_is_the_convolution_it_says(boundary, side):
    x, kernel = draw(5, 7), draw(*side, seed=1)
    y = ops.Blur(kernel, (1, 5, 7), boundary)(x[None, None])[0, 0]
    torch.testing.assert_close(y, direct_convolution(x, kernel, BORDERS[boundary]))
    if side[0] % 2 and side[1] % 2:
        valid = ops.Blur(kernel, (1, 5, 7), "valid")(x[None, None])[0, 0]
        torch.testing.assert_close(
            valid, y[side[0] // 2 : 5 - side[0] // 2, side[1] // 2 : 7 - side[1] // 2]
        )


def test_the_adjoint_of_a_chain_is_that_of_its_parts_in_the_other_order():
    """Two filters of one shape that do not commute: at the border one sees the other side, the
    other nothing."""
    kernel = torch.tensor([[0.1, 0.5, 0.2], [0.0, 0.3, -0.4]], dtype=torch.float64)
    around = ops.Blur(kernel, (1, 5, 6))
    within = ops.Blur(kernel.T.contiguous(), (1, 5, 6), boundary="zero")
    for A in (around @ within, within @ around):
        ops.dot_test(A, rtol=1e-10, dtype=torch.float64)
    assert not torch.allclose(ops.matrix(around @ within), ops.matrix(within @ around))


@pytest.mark.parametrize("sides", [(3, 3), (3, 12)])
def test_a_kernel_larger_than_the_image(sides):
    kernel, shape = draw(9, 9), (2, *sides)
    for boundary in ("circular", "symmetric", "zero"):
        A = ops.Blur(kernel, shape, boundary)
        x = draw(1, *shape, seed=2)
        torch.testing.assert_close(
            A(x)[0, 1], direct_convolution(x[0, 1], kernel, BORDERS[boundary])
        )
        check_operator(A)
    for boundary in ("reflect", "valid"):
        with pytest.raises(
            ValueError,
            match=f"9x9 kernel is too large for {sides[0]}x{sides[1]} images "
            f"with the boundary '{boundary}'",
        ):
            ops.Blur(kernel, shape, boundary)


@pytest.mark.parametrize("side", [(3, 3), (5, 1), (9, 9)])
def test_a_symmetric_border_is_diagonal_in_the_cosines(side):
    """A = C^T diag(D) C for a kernel that is its own mirror image, with taps of either sign."""
    corner = draw(side[0] // 2 + 1, side[1] // 2 + 1)
    rows = torch.cat([corner.flip(0), corner[1:]])
    kernel = torch.cat([rows.flip(1), rows[:, 1:]], 1)
    A = ops.Blur(kernel, (1, 5, 6), "symmetric")
    C = torch.kron(linalg.cosines(5), linalg.cosines(6))
    D = C @ ops.matrix(A) @ C.T
    off = D - torch.diag(D.diagonal())
    torch.testing.assert_close(off, torch.zeros_like(off), rtol=0, atol=1e-12)
    torch.testing.assert_close(A.spectrum().s, D.diagonal().abs(), rtol=0, atol=1e-12)
    Sigma = A.posterior_covariance(2.0, 0.1)
    expected = torch.linalg.inv(torch.eye(30) / 2.0 + ops.matrix(A).T @ ops.matrix(A) / 0.1)
    torch.testing.assert_close(Sigma.dense(draw(1, 1, 5, 6)), expected, rtol=0, atol=1e-11)
    # One tap to the side, and there is no such basis.
    uneven = ops.Blur(kernel + 0.1 * draw(*side, seed=3), (1, 5, 6), "symmetric")
    assert side[1] == 1 or uneven.spectrum() is None
    assert side[1] == 1 or uneven.posterior_covariance(2.0, 0.1) is None


def test_reflection_takes_what_it_can():
    kernel = draw(9, 9)
    A = ops.Blur(kernel, (1, 5, 6), "reflect")
    x = draw(1, 1, 5, 6)
    torch.testing.assert_close(A(x)[0, 0], direct_convolution(x[0, 0], kernel, BORDERS["reflect"]))
    with pytest.raises(ValueError, match="9x9"):
        ops.Blur(kernel, (1, 4, 6), "reflect")


def test_the_order_of_a_mask_and_a_blur_is_the_order_written():
    blur, x = ops.Blur(ops.gaussian_kernel(1.0), (1, 16, 16)), draw(1, 1, 16, 16)
    mask = ops.box_mask((1, 16, 16), 6)
    keep = ops.Mask(mask)
    torch.testing.assert_close((keep @ blur)(x), blur(x)[:, mask])
    hole = Wrapped((1, 16, 16), lambda x: x * mask)
    assert float(((blur @ hole)(x)[:, mask] - (keep @ blur)(x)).abs().max()) > 0.05


def test_a_gaussian_kernel_has_the_width_it_says():
    k = ops.gaussian_kernel(1.7).double()
    t = torch.arange(len(k), dtype=torch.float64) - len(k) // 2
    assert float(k.sum()) == pytest.approx(1.0, abs=1e-6)
    assert float((k.sum(0) * t**2).sum()) == pytest.approx(1.7**2, rel=2e-3)
    assert ops.gaussian_kernel(3.0, 7).shape == (7, 7)


# Downsampling: four instruments with one nickname.


def chirp():
    t = torch.linspace(-1, 1, 96, dtype=torch.float64)
    wave = torch.sin(10 * math.pi * t**2)
    return (0.5 + 0.5 * torch.outer(wave, wave))[None, None]


def decibels(a, b):
    return -10 * math.log10(float((a - b).square().mean()))


def test_each_kind_of_downsampling_is_its_own_reference():
    x = chirp()
    y = {
        kind: ops.Downsample((1, 96, 96), 4, kind=kind)(x)
        for kind in ("box", "bicubic", "bicubic-no-antialias", "stride")
    }
    torch.testing.assert_close(y["box"], F.avg_pool2d(x, 4))
    torch.testing.assert_close(y["stride"], x[..., ::4, ::4])
    torch.testing.assert_close(
        y["bicubic-no-antialias"],
        F.interpolate(x, (24, 24), mode="bicubic", antialias=False, align_corners=False),
    )
    picture = Image.fromarray(x[0, 0].numpy().astype(np.float32))
    pillow = torch.from_numpy(np.array(picture.resize((24, 24), Image.Resampling.BICUBIC))).double()
    torch.testing.assert_close(
        y["bicubic"][0, 0, 2:-2, 2:-2], pillow[2:-2, 2:-2], rtol=0, atol=1e-5
    )
    assert decibels(y["bicubic-no-antialias"], y["bicubic"]) == pytest.approx(16, abs=0.5)
    assert decibels(y["stride"], y["bicubic"]) == pytest.approx(12, abs=0.5)
    assert decibels(y["box"], y["bicubic"]) < 32


@pytest.mark.parametrize("factor", [2, 3])
@pytest.mark.parametrize("kind", ["bicubic", "bicubic-no-antialias"])
def test_cubics_agree_with_others_for_other_factors_and_sides(kind, factor):
    x = torch.rand(
        1,
        1,
        12 * factor,
        10 * factor,
        generator=torch.Generator().manual_seed(0),
        dtype=torch.float64,
    )
    y = ops.Downsample(tuple(x.shape[1:]), factor, kind=kind)(x)
    if kind == "bicubic":
        picture = Image.fromarray(x[0, 0].numpy().astype(np.float32)).resize(
            (10, 12), Image.Resampling.BICUBIC
        )
        torch.testing.assert_close(
            y[0, 0, 2:-2, 2:-2].float(),
            torch.from_numpy(np.array(picture))[2:-2, 2:-2],
            rtol=0,
            atol=1e-5,
        )
    else:
        torch.testing.assert_close(
            y, F.interpolate(x, (12, 10), mode="bicubic", align_corners=False)
        )


def test_the_antialiased_border_is_the_mirrored_image():
    x = draw(1, 1, 16, 12)
    mirrored = torch.cat([x.flip(-1), x, x.flip(-1)], -1)
    mirrored = torch.cat([mirrored.flip(-2), mirrored, mirrored.flip(-2)], -2)
    wide = ops.Downsample((1, 48, 36), 4, kind="bicubic")(mirrored)[..., 4:8, 3:6]
    torch.testing.assert_close(ops.Downsample((1, 16, 12), 4, kind="bicubic")(x), wide)


def test_constant_images_stay_constant():
    for kind in ("box", "bicubic", "bicubic-no-antialias", "stride"):
        A = ops.Downsample((3, 12, 24), 4, kind=kind)
        torch.testing.assert_close(A(torch.ones(2, 3, 12, 24)), torch.ones(2, 3, 3, 6))
    torch.testing.assert_close(
        ops.Downsample((1, 8, 8), 4).spectrum().s, torch.full((4,), 0.25, dtype=torch.float64)
    )
    grey = torch.rand(1, 1, 4, 4)
    torch.testing.assert_close(ops.Grey((3, 4, 4))(grey.expand(1, 3, 4, 4)), grey)


# Fourier.


def test_the_zero_frequency_lies_where_the_option_says():
    shape, every = (5, 6), torch.ones(5, 6, dtype=torch.bool)
    flat = torch.ones(1, *shape, dtype=torch.complex128)
    for centred, place in ((True, (2, 3)), (False, (0, 0))):
        A = ops.MaskedFourier(every, shape, centred=centred)
        kspace = A.fill(A(flat))[0]
        expected = torch.zeros(shape, dtype=torch.complex128)
        expected[place] = math.sqrt(30)
        torch.testing.assert_close(kspace, expected)
        point = torch.zeros(1, *shape, dtype=torch.complex128)
        point[0, place[0], place[1]] = 1
        torch.testing.assert_close(
            A(point), torch.full((1, 30), 1 / math.sqrt(30), dtype=torch.complex128)
        )


def test_select_and_fill():
    mask = ops.random_mask((1, 6), 0.5, 0).expand(5, 6)
    A = ops.MultiCoilFourier(draw(3, 5, 6, dtype=torch.complex128), mask)
    kspace = draw(2, 3, 5, 6, dtype=torch.complex128)
    y = A.select(kspace)
    assert y.shape == (2, *A.out_shape) == (2, 3, 15)
    torch.testing.assert_close(A.fill(y), torch.where(mask, kspace, 0))
    torch.testing.assert_close(
        A.fourier.fill(A.fourier.select(kspace[0, 0])), torch.where(mask, kspace[0, 0], 0)
    )
    with pytest.raises(ValueError, match=r"\(\.\.\., 5, 6\), got \(6, 5\)"):
        A.select(torch.zeros(6, 5))
    with pytest.raises(ValueError, match="15 sampled points"):
        A.fill(torch.zeros(3, 30))


def test_unit_sensitivities_make_one_coil():
    mask = ops.random_mask((5, 6), 0.5, 0)
    x = draw(2, 5, 6, dtype=torch.complex128)
    many = ops.MultiCoilFourier(torch.ones(2, 5, 6, dtype=torch.complex64), mask)
    one = ops.MaskedFourier(mask, (5, 6))
    torch.testing.assert_close(many(x), one(x)[:, None].expand(-1, 2, -1))
    assert ops.norm2(many) == pytest.approx(math.sqrt(2), rel=1e-4)


def test_closed_forms_survive_a_unitary_neighbour():
    fourier = ops.MaskedFourier(ops.random_mask((8, 8), 0.5, 0), (8, 8))
    channels = ops.ComplexChannels((2, 8, 8))
    assert (fourier @ channels).spectrum() is not None
    assert (ops.Identity((1, 4, 4)) @ ops.Downsample((1, 8, 8), 2)).spectrum() is not None
    assert (
        ops.Mask(ops.box_mask((1, 8, 8), 4)) @ ops.Blur(draw(3, 3), (1, 8, 8))
    ).spectrum() is None


# Tomography.


def disc(n, radius, pixel=1.0, value=1.0, over=8):
    """A disc of ``radius`` mm on n x n pixels, its border averaged."""
    t = (torch.arange(n * over, dtype=torch.float64) - (n * over - 1) / 2) * pixel / over
    return F.avg_pool2d(value * (t[:, None] ** 2 + t**2 < radius**2).double()[None, None], over)


@pytest.mark.parametrize(("pixel", "spacing"), [(1.0, None), (0.7, 0.5)])
def test_a_ray_through_a_disc_measures_its_chord_in_mm(pixel, spacing):
    radius = 25 * pixel
    A = ops.Radon((1, 64, 64), np.arange(0, 180, 7.5), pixel, detector_mm=spacing)
    y = A(disc(64, radius, pixel))[0, 0]
    t = (torch.arange(A.detectors, dtype=torch.float64) - (A.detectors - 1) / 2) * A.detector_mm
    chord = 2 * (radius**2 - t**2).clamp(min=0).sqrt()
    inside = t.abs() < 0.9 * radius
    assert float((y[:, inside] / chord[inside] - 1).abs().max()) < 0.02
    assert float(y[:, t.abs() > radius + 1.5 * pixel].abs().max()) == 0.0


def test_angles_turn_as_in_scikit_image():
    x = torch.zeros(1, 65, 65, dtype=torch.float64)
    x[0, 12:24, 36:46] = 1.0
    x = F.avg_pool2d(x, 3, stride=1, padding=1)
    angles = np.array([0.0, 20.0, 45.0, 90.0, 130.0, 170.0])
    ours = ops.Radon((65, 65), angles, 1.0, detectors=65)(x)[0]
    theirs = torch.from_numpy(radon(x[0].numpy(), theta=angles, circle=True)).T
    assert float((ours - theirs).norm() / theirs.norm()) < 0.02


def test_the_projector_and_its_adjoint_are_a_matched_pair():
    A = ops.Radon((32, 32), np.arange(0, 180, 9), 1.0).double()
    ops.dot_test(A, rtol=1e-10, dtype=torch.float64)
    small = ops.Radon((4, 5), [0, 50, 130], 1.0).double()
    assert torch.autograd.gradcheck(small.adjoint, draw(2, *small.out_shape).requires_grad_())
    assert torch.autograd.gradgradcheck(lambda x: small(x) ** 2, draw(2, 4, 5).requires_grad_())
    x = disc(32, 11)[:, 0]
    b, damping = A.adjoint(A(x)), 1e-3
    normal = lambda v: A.adjoint(A(v)) + damping * v
    values = []
    for count in (1, 2, 3, 5, 8, 12, 20, 30, 50, 80, 120, 200):
        v = cg(normal, b, max_iter=count, rtol=1e-14).x
        values.append(float((A(v) - A(x)).square().sum() + damping * v.square().sum()))
    assert all(later <= earlier * (1 + 1e-12) for earlier, later in itertools.pairwise(values))
    gap = float((normal(v) - b).norm() / b.norm())
    assert gap < 1e-6


@pytest.mark.parametrize("count", [8, 30, 180])
def test_the_norm_of_a_projector_is_measured_and_its_pseudo_inverse_gives_physical_values(count):
    A = ops.Radon((32, 32), np.arange(count) * 180 / count, 0.5)
    exact = float(torch.linalg.matrix_norm(ops.matrix(A), 2))
    assert ops.norm2(A) == pytest.approx(exact, rel=1e-4)
    smooth = F.avg_pool2d(disc(32, 5.0, 0.5, value=0.02), 5, stride=1, padding=2)[:, 0].float()
    back = ops.pinv(A, A(smooth))
    inside = disc(32, 3.0, 0.5)[0, 0] == 1
    assert float(back[0][inside].mean()) == pytest.approx(0.02, rel=0.05)


def test_radians_are_noticed():
    with pytest.warns(UserWarning, match="look like radians"):
        ops.Radon((8, 8), np.linspace(0, math.pi, 20), 1.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ops.Radon((8, 8), torch.linspace(0, 179, 20), 1.0)


# Phase retrieval, and operators after operators.


def test_image_and_quadrature_are_the_two_parts_beside_the_phase():
    angle = torch.arange(20, dtype=torch.float64).view(4, 5)
    phase = torch.polar(torch.ones_like(angle), angle)
    parts = torch.arange(40, dtype=torch.float64).view(1, 40)
    A = ops.Quadrature(phase)
    image, beside = parts[0].view(2, 4, 5)
    torch.testing.assert_close(A(parts)[0], phase * torch.complex(image, beside))
    torch.testing.assert_close(A.adjoint(A(parts)), parts)
    # without the second part it is ``PhaseMap``
    alone = torch.cat([image.flatten(), torch.zeros(20, dtype=torch.float64)])[None]
    torch.testing.assert_close(A(alone), ops.PhaseMap(phase)(image[None, None]))


def test_phase_retrieval_loses_the_phase_and_nothing_else():
    A = ops.PhaseRetrieval((1, 6, 5), oversampling=2.0)
    x = draw(1, 1, 6, 5)
    y = A(x)
    assert y.shape == (1, 1, 12, 10)
    assert ops.PhaseRetrieval((2, 5, 4), oversampling=1.25).out_shape == (2, 7, 5)
    torch.testing.assert_close(y.square().sum(), x.square().sum())
    torch.testing.assert_close(A(-x), y)
    torch.testing.assert_close(A(x.flip((-2, -1))), y)
    zero = torch.zeros(1, 1, 6, 5, requires_grad=True)
    assert torch.equal(torch.autograd.grad(A(zero).sum(), zero)[0], torch.zeros(1, 1, 6, 5))


def test_a_stack_is_split_into_what_was_stacked():
    A = ops.Stack(
        ops.Downsample((1, 8, 8), 2),
        ops.Mask(ops.box_mask((1, 8, 8), 4)),
        ops.Blur(draw(3, 3), (1, 8, 8)),
    )
    x = draw(2, 1, 8, 8)
    y = A(x)
    assert y.shape == (2, 16 + 48 + 64)
    parts = A.split(y)
    for operator, part in zip(A.parts, parts, strict=True):
        torch.testing.assert_close(operator(x), part)
    torch.testing.assert_close(
        A.adjoint(y),
        sum(operator.adjoint(part) for operator, part in zip(A.parts, parts, strict=True)),
    )
    ops.dot_test(A, rtol=1e-12, dtype=torch.float64)


def test_measurements_of_a_wrong_shape_are_refused_with_both_shapes():
    for name in LINEAR:
        A = OPERATORS[name](torch.float64)
        y = draw(
            1,
            *A.out_shape[:-1],
            A.out_shape[-1] + 1,
            dtype=torch.complex128 if A.complex_out else torch.float64,
        )
        with pytest.raises(ValueError, match=r"shape \(") as caught:
            A.adjoint(y)
        assert str(tuple(y.shape)) in str(caught.value) or isinstance(A, ops.Compose)


def test_the_contract_finds_singular_values_of_another_operator():
    class Louder(ops.Dense):
        def spectrum(self):
            found = super().spectrum()
            return Spectrum(1.1 * found.s, found.V, found.Vh, found.U, found.Uh)

    with pytest.raises(AssertionError, match=r"U s V\^H x and A x"):
        check_operator(
            Louder(
                torch.randn(3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
            )
        )
