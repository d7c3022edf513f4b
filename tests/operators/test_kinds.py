"""What is not what it claims is said when a problem is put together: kinds of number, operators
that draw, odd kernels and coils."""

from __future__ import annotations

import warnings

import pytest
import torch
from cases import NOISES, OPERATORS
from reference import F64, draw

import posteriori as po
from posteriori import operators as ops
from posteriori.operators.base import LinearOperator, Operator
from posteriori.rng import Streams
from posteriori.testing import check_operator


@pytest.mark.parametrize("name", OPERATORS)
@pytest.mark.parametrize("law", NOISES)
def test_noise_and_measurement_are_of_one_kind(law, name):
    """Gaussian noise of k-space has half of its energy, complex noise of real numbers a score that
    is too wide."""
    A, (noise, complex, _) = OPERATORS[name](F64), NOISES[law]
    y = torch.zeros(A.out_shape, dtype=torch.complex128 if A.complex_out else F64)
    if complex == A.complex_out:
        assert po.Likelihood(y, A, noise).noise is noise
        return
    kinds = ("complex", "real") if complex else ("real", "complex")
    remedy = "Gaussian(sigma)" if complex else "ComplexGaussian(sigma_per_channel=...)"
    with pytest.raises(TypeError) as found:
        po.Likelihood(y, A, noise)
    assert f"noise is of {kinds[0]} numbers and met {kinds[1]} measurements" in str(found.value)
    assert remedy in str(found.value)


@pytest.mark.parametrize("name", OPERATORS)
def test_prior_and_operator_are_of_one_kind(name):
    A = OPERATORS[name](F64)
    y = torch.zeros(A.out_shape, dtype=torch.complex128 if A.complex_out else F64)
    like = po.Likelihood(
        y, A, po.noise.ComplexGaussian(0.1) if A.complex_out else po.noise.Gaussian(0.1)
    )
    real = po.priors.Gaussian(torch.zeros(A.in_shape, dtype=F64), 1.0)
    paired = po.priors.ComplexImages(
        po.priors.Gaussian(torch.zeros(2, *A.in_shape, dtype=F64), 1.0)
    )
    right, wrong = (paired, real) if A.complex_in else (real, paired)
    assert po.Posterior(right, like).prior is right
    words = (
        "models real images, .* takes complex ones; .*ComplexChannels"
        if A.complex_in
        else "models complex images, .* takes real ones"
    )
    with pytest.raises(TypeError, match=words):
        po.Posterior(wrong, like)


class Drawing(Operator):
    """A new kernel at each call."""

    def forward(self, x):
        self.check_input(x)
        return x * torch.rand(x.shape[1:], dtype=x.dtype)


class LinearDrawing(LinearOperator, Drawing):
    def adjoint(self, y):
        return y * torch.rand(y.shape[1:], dtype=y.dtype)


class Dropping(Operator):
    def __init__(self):
        super().__init__((400,))
        self.net = torch.nn.Dropout(0.5)

    def forward(self, x):
        self.check_input(x)
        return self.net(x)


@pytest.mark.parametrize(
    "A", [Drawing((1, 4, 5)), LinearDrawing((1, 4, 5)), Dropping()], ids=lambda A: type(A).__name__
)
def test_an_operator_that_draws_at_each_call_is_none(A):
    y = torch.zeros(A.in_shape)
    with pytest.raises(
        ValueError,
        match=rf"{type(A).__name__} is not an operator: "
        r"A\(x\) differs between two calls, by .* eval",
    ):
        po.Likelihood(y, A, po.noise.Gaussian(0.1))
    with pytest.raises(AssertionError, match="differs between two calls"):
        check_operator(A)
    if isinstance(A, Dropping):
        assert po.Likelihood(y, A.eval(), po.noise.Gaussian(0.1)).A is A
    assert po.Likelihood(y, A, po.noise.Gaussian(0.1), check=False).A is A


def test_an_operator_is_called_twice_once():
    class Counting(Drawing):
        calls = 0

        def forward(self, x):
            self.calls += 1
            return x**2

    A = Counting((3,))
    for _ in range(3):
        po.Likelihood(torch.zeros(3), A, po.noise.Gaussian(0.1))
    assert A.calls == 3  # the shape, and two to compare


@pytest.mark.parametrize("total", [0.07, 1.7, -1.0])
@pytest.mark.parametrize("boundary", ["circular", "zero", "reflect", "valid"])
def test_a_kernel_that_changes_the_brightness_is_said(total, boundary):
    kernel = total * ops.gaussian_kernel(0.8, 3)
    with pytest.warns(
        UserWarning,
        match=rf"sums to {total:g}, so that y is {total:g} times as bright as x; "
        "give kernel / kernel.sum",
    ):
        ops.Blur(kernel, (1, 6, 6), boundary)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ops.Blur(kernel / kernel.sum(), (1, 6, 6), boundary)


def test_a_kernel_that_sums_to_nothing_is_refused():
    for kernel in (
        torch.tensor([[-1.0, 0.0, 1.0]]),
        torch.zeros(3, 3),
        torch.tensor([[0.1, 0.2, -0.3]]),
    ):
        with pytest.raises(ValueError, match=r"the kernel sums to .*cannot be normalised; .*Dense"):
            ops.Blur(kernel, (1, 6, 6))


def test_coil_maps_that_shade_the_image_are_said_with_their_power():
    maps = torch.zeros(2, 6, 5, dtype=torch.complex64)
    maps[0, 1:], maps[1, 1:] = 2.5j, 1.5  # the first row sees nothing
    maps[0, 3] = 0.5
    mask = torch.ones(6, 5, dtype=torch.bool)
    with pytest.warns(UserWarning, match=r"between 2.5 and 8.5 where it is not 0"):
        ops.MultiCoilFourier(maps, mask)
    power = maps.abs().square().sum(0).sqrt()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        A = ops.MultiCoilFourier(maps / power.clamp(min=1e-9), mask)
    assert ops.norm2(A) == pytest.approx(1.0, rel=1e-5)


# Numbers that lie in memory in another order.


def scattered(t):
    """The same numbers with other strides."""
    return (
        t.transpose(0, -1).contiguous().transpose(0, -1)
        if t.ndim > 1
        else torch.stack([t, t], -1)[..., 0]
    )


@pytest.mark.parametrize("name", OPERATORS)
def test_operators_take_numbers_in_any_order_of_memory(name):
    A = OPERATORS[name](F64)
    x = A.probe(lambda *size, dtype, device: draw(*size, dtype=dtype), 3, F64)
    u = draw(3, *A.out_shape, dtype=torch.complex128 if A.complex_out else F64, seed=1)
    y, pull = A.linearize(x)
    other, other_pull = A.linearize(scattered(x))
    torch.testing.assert_close(other, y)
    for v in (scattered(u), u[:1].expand(3, *u.shape[1:]), u.conj()):
        torch.testing.assert_close(other_pull(v), pull(v.resolve_conj().contiguous()))
    if isinstance(A, LinearOperator):
        torch.testing.assert_close(ops.solve(A, scattered(u), 1.0, 1.0), ops.solve(A, u, 1.0, 1.0))


@pytest.mark.parametrize("name", NOISES)
def test_noise_takes_numbers_in_any_order_of_memory(name):
    law, complex, level = NOISES[name]
    clean = (
        level
        + 0.1 * draw(2, 3, 4, 5, dtype=torch.complex128 if complex else F64).abs()
        + (0.3j if complex else 0)
    )
    y = law.sample(clean, Streams(0, range(2)))
    views = [scattered, lambda t: t.contiguous(memory_format=torch.channels_last)]
    for view in views:
        assert torch.equal(law.sample(view(clean), Streams(0, range(2))), y)
        torch.testing.assert_close(law.log_prob(view(y), view(clean)), law.log_prob(y, clean))
        torch.testing.assert_close(law.score(view(y), view(clean)), law.score(y, clean))
