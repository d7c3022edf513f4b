"""Families of instruments y = A(x; phi), and operators on several tensors."""

import pytest
import torch
from reference import draw

import posteriori as po
from posteriori.operators.blind_gaussian_blur import BlindGaussianBlur
from posteriori.packing import pack
from posteriori.testing import check_operator

ops, F64 = po.operators, torch.float64
FAMILIES = {
    f"{kind} {boundary}": (make, boundary)
    for boundary in ("circular", "reflect", "zero", "valid")
    for kind, make in {
        "kernel": lambda boundary: ops.BlindConvolution((2, 6, 5), (4, 3), boundary),
        "width": lambda boundary: BlindGaussianBlur((2, 6, 5), 5, boundary),
    }.items()
}


def case(name):
    make, boundary = FAMILIES[name]
    A = make(boundary)
    return A, draw(3, *A.image_shape), 0.5 * draw(3, *A.parameters_shape, seed=1) + 0.2


@pytest.mark.parametrize("name", FAMILIES)
def test_the_operator_at_known_parameters_is_the_family_there(name):
    """One phi for all rows, one for each row, and the packed pair: the same measurements."""
    A, x, phi = case(name)
    each = torch.cat([A.at(p)(row[None]) for p, row in zip(phi, x, strict=True)])
    torch.testing.assert_close(A.apply(x, phi), each, rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(A.apply(x, phi[1]), A.at(phi[1])(x), rtol=1e-11, atol=1e-11)
    packed = pack({"image": x, A.name: phi})
    torch.testing.assert_close(A(packed), each, rtol=1e-11, atol=1e-11)
    assert A.at(phi[0]).reach == A.reach
    check_operator(A.at(phi[2]))
    assert isinstance(A.at(phi[0]), ops.LinearOperator)


@pytest.mark.parametrize("name", FAMILIES)
def test_the_gradient_to_the_parameters_is_that_of_differences(name):
    A, x, phi = case(name)
    weights = draw(*A.apply(x, phi).shape, seed=2)
    leaf = phi.clone().requires_grad_()
    (A.apply(x, leaf) * weights).sum().backward()
    for k in range(phi[0].numel()):
        h = torch.zeros_like(phi).flatten(1)
        h[:, k] = 1e-5
        ends = [(A.apply(x, phi + s * h.view_as(phi)) * weights).flatten(1).sum(1) for s in (1, -1)]
        wanted = (ends[0] - ends[1]) / 2e-5
        torch.testing.assert_close(leaf.grad.flatten(1)[:, k], wanted, rtol=1e-6, atol=1e-7)


def test_a_family_at_known_parameters_takes_methods_for_linear_operators():
    """PiGDM, DDRM and TDS refuse the pair and run at a known width."""
    A = BlindGaussianBlur((1, 6, 6), 5)
    y = A.apply(draw(1, 1, 6, 6), torch.zeros(1, dtype=F64))[0]
    noise = po.noise.Gaussian(0.1)
    pair = po.Posterior(
        po.priors.Joint(
            {
                "image": po.priors.Gaussian(torch.zeros(1, 6, 6, dtype=F64), 1.0),
                "log_width": po.priors.Gaussian(torch.zeros(1, dtype=F64), 0.1),
            }
        ),
        po.Likelihood(y, A, noise),
    )
    image = po.priors.Gaussian(torch.zeros(1, 6, 6, dtype=F64), 1.0)
    known = po.Posterior(image, po.Likelihood(y, A.at(torch.zeros(1, dtype=F64)), noise))
    for method in (po.methods.PiGDM(), po.methods.DDRM(), po.methods.TDS(particles=4)):
        assert method.refuses(pair)
        run = po.sample(known, method, n=1, steps=4)
        assert run.samples.shape == (1, 1, 6, 6)


def test_the_parameter_is_the_logarithm_of_the_width_in_pixels():
    kernel = BlindGaussianBlur((1, 9, 9), 9).kernel(torch.tensor([1.7]).log())
    torch.testing.assert_close(kernel, ops.gaussian_kernel(1.7, 9), rtol=1e-5, atol=1e-7)


def test_widths_beyond_all_bounds_are_points_or_flat():
    A = BlindGaussianBlur((1, 4, 4), 5)
    leaf = torch.tensor([[-1e4], [1e4]], dtype=torch.float32, requires_grad=True)
    kernels = A.kernel(leaf)
    kernels.square().sum().backward()
    assert float(kernels[0, 2, 2].detach()) == 1.0
    torch.testing.assert_close(kernels[1].detach(), torch.full((5, 5), 0.04), rtol=1e-6, atol=0)
    assert leaf.grad.isfinite().all()


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="size must be odd"):
        BlindGaussianBlur((1, 4, 4), 4)
    with pytest.raises(ValueError, match="too large"):
        ops.BlindConvolution((1, 4, 4), (5, 3), "valid")
    with pytest.raises(ValueError, match=r"takes images of shape \(25,\)"):
        ops.BlindConvolution((1, 4, 4), (3, 3))(draw(2, 24))
    with pytest.raises(ValueError, match=r"shape \(3,\)"):
        ops.Packed({"a": (2,), "b": (1,)}, lambda a, b: a * b)(draw(2, 4))
