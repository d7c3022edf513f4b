"""Families of instruments y = A(x; phi), and operators on several tensors."""

import math

import pytest
import torch
from reference import draw

import posteriori as po
from posteriori.operators.blind_gaussian_blur import BlindGaussianBlur
from posteriori.packing import pack
from posteriori.testing import check_operator

ops, F64 = po.operators, torch.float64
MASK, KERNEL = ops.random_mask((6, 5), 0.6, 2), ops.gaussian_kernel(0.8, 3).double()


def coils():
    return torch.complex(draw(3, 6, 5, seed=5), draw(3, 6, 5, seed=6))


def rays():
    return ops.Radon((6, 5), [0, 30, 100, 215], 0.5, detectors=14, detector_mm=0.7).double()


FAMILIES = {
    f"{kind} {boundary}": (make, boundary)
    for boundary in ("circular", "reflect", "zero", "valid")
    for kind, make in {
        "kernel": lambda boundary: ops.BlindConvolution((2, 6, 5), (4, 3), boundary),
        "width": lambda boundary: BlindGaussianBlur((2, 6, 5), 5, boundary),
    }.items()
} | {
    "gamma": (lambda _: ops.BlindGamma((2, 3, 4)), None),
    "phase": (lambda ramps: ops.BlindCoilPhase(coils(), MASK, ramps=ramps), False),
    "phase ramps": (lambda ramps: ops.BlindCoilPhase(coils(), MASK, ramps=ramps), True),
    "centre": (lambda _: ops.BlindRotationCentre(rays()), None),
    "turbulence": (lambda cells: ops.BlindTurbulence((2, 6, 5), KERNEL, cells), (3, 2)),
    "turbulence one tilt": (
        lambda cells: ops.BlindTurbulence((1, 6, 5), KERNEL, cells, "valid"),
        (1, 1),
    ),
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
    assert isinstance(A.at(phi[0]), ops.LinearOperator) == (name != "gamma")


@pytest.mark.parametrize("name", FAMILIES)
def test_the_gradient_to_the_parameters_is_that_of_differences(name):
    A, x, phi = case(name)
    clean = A.apply(x, phi)
    weights = draw(*clean.shape, seed=2).to(clean) * (1 - 0.5j if clean.is_complex() else 1)
    leaf = phi.clone().requires_grad_()
    (A.apply(x, leaf) * weights).real.sum().backward()
    for k in range(phi[0].numel()):
        h = torch.zeros_like(phi).flatten(1)
        h[:, k] = 1e-5
        ends = [(A.apply(x, phi + s * h.view_as(phi)) * weights).real for s in (1, -1)]
        ends = [end.flatten(1).sum(1) for end in ends]
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


@pytest.mark.parametrize("boundary", ["circular", "valid", "zero"])
@pytest.mark.parametrize("size", [(4, 3), (3, 5)])
def test_the_normal_equations_of_a_kernel_are_those_of_its_unit_taps(boundary, size):
    """X^T X and X^T y, of each row its own; by correlations where the image repeats."""
    A = ops.BlindConvolution((2, 6, 5), size, boundary)
    x, n = draw(3, 2, 6, 5), size[0] * size[1]
    y = A.apply(x, draw(3, *size, seed=1)) + draw(*A.apply(x, draw(3, *size)).shape, seed=2)
    G, h = A.gram(x, y)
    for k in range(3):
        units = torch.eye(n, dtype=F64).view(n, *size)
        X = A.apply(x[k].expand(n, -1, -1, -1), units).flatten(1).T
        torch.testing.assert_close(G[k], X.T @ X, rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(h[k], X.T @ y[k].flatten(), rtol=1e-10, atol=1e-10)


def test_a_feasible_kernel_has_taps_of_sum_one_that_are_not_negative():
    A = ops.BlindConvolution((1, 6, 6), (3, 3))
    phi = draw(4, 3, 3)
    phi[3] = -phi[3].abs()
    k = A.feasible(phi)
    assert float(k.min()) >= 0
    torch.testing.assert_close(k.sum((1, 2)), torch.ones(4, dtype=F64))
    torch.testing.assert_close(k[0], phi[0].clamp(min=0) / phi[0].clamp(min=0).sum())
    torch.testing.assert_close(k[3], torch.full((3, 3), 1 / 9, dtype=F64))
    torch.testing.assert_close(A.feasible(k), k)
    log_width = phi[:, 0, :1]
    assert BlindGaussianBlur((1, 6, 6), 5).feasible(log_width) is log_width


def test_what_is_read_of_a_kernel_is_its_sum_and_its_widths():
    A = ops.BlindConvolution((1, 9, 9), (9, 9))
    k = 2 * ops.gaussian_kernel(1.0, 9).double()[None]
    total, rows, columns = A.read(k).values()
    t = torch.arange(9, dtype=F64) - 4
    line = torch.softmax(-0.5 * t**2, 0)
    assert float(total) == pytest.approx(2.0, rel=1e-5)
    for found in (rows, columns):
        assert float(found) == pytest.approx(float((line * t**2).sum() ** 0.5), rel=1e-5)


def test_widths_beyond_all_bounds_are_points_or_flat():
    A = BlindGaussianBlur((1, 4, 4), 5)
    leaf = torch.tensor([[-1e4], [1e4]], dtype=torch.float32, requires_grad=True)
    kernels = A.kernel(leaf)
    kernels.square().sum().backward()
    assert float(kernels[0, 2, 2].detach()) == 1.0
    torch.testing.assert_close(kernels[1].detach(), torch.full((5, 5), 0.04), rtol=1e-6, atol=0)
    assert leaf.grad.isfinite().all()


def test_a_tone_curve_is_a_power_with_a_tangent_below_its_toe():
    x = torch.tensor([[-0.3, 0.0, 0.05, 0.2, 0.9]], dtype=F64)
    for exponent in (0.45, 2.2):
        y = ops.Gamma((5,), exponent, toe=0.1)(x)
        torch.testing.assert_close(y[0, 3:], x[0, 3:] ** exponent, rtol=1e-12, atol=0)
        slope = exponent * 0.1 ** (exponent - 1)
        wanted = 0.1**exponent + slope * (x[0, :3] - 0.1)
        torch.testing.assert_close(y[0, :3], wanted, rtol=1e-12, atol=1e-14)
    A = ops.BlindGamma((5,))
    assert A.at(torch.tensor([9.0])).exponent == pytest.approx(math.exp(3.0))
    assert A.apply(x, torch.tensor([-50.0], dtype=F64)).isfinite().all()


def test_a_warp_by_whole_pixels_moves_the_image_and_one_of_a_line_is_exact():
    """Catmull and Rom's cubic takes a straight line for what it is; the border's value goes on."""
    x = draw(2, 1, 5, 6)
    move = torch.stack([torch.full((5, 6), 1.0), torch.full((5, 6), -2.0)]).double()
    y = ops.Warp((1, 5, 6), move)(x)
    wanted = x[:, :, [1, 2, 3, 4, 4]][..., [0, 0, 0, 1, 2, 3]]
    torch.testing.assert_close(y, wanted, rtol=0, atol=1e-12)
    ramp = (torch.arange(8, dtype=F64)[:, None] * 2 - torch.arange(9, dtype=F64))[None, None]
    d = 0.4 * draw(2, 8, 9, seed=3)
    inside = (slice(None), slice(None), slice(2, 6), slice(2, 7))
    wanted = ramp + 2 * d[0] - d[1]
    torch.testing.assert_close(
        ops.Warp((1, 8, 9), d)(ramp)[inside], wanted[inside], rtol=1e-10, atol=1e-10
    )
    with pytest.raises(ValueError, match="need a displacement"):
        ops.Warp((1, 4, 4), torch.zeros(2, 4, 5))


def test_derivatives_of_a_warp_go_forwards_too():
    """Randomise-then-optimise asks for them."""
    A = ops.BlindTurbulence((1, 6, 5), KERNEL, (2, 2))
    x, v = draw(2, A.in_shape[0]), draw(2, A.in_shape[0], seed=4)
    _, push = torch.func.jvp(A, (x,), (v,))
    wanted = (A(x + 1e-6 * v) - A(x - 1e-6 * v)) / 2e-6
    torch.testing.assert_close(push, wanted, rtol=1e-6, atol=1e-7)


def test_a_shift_of_the_detectors_is_that_of_the_rays():
    """By whole steps numbers move; by half a step a smooth curve is that of places half a step
    away; what leaves does not return."""
    x = draw(1, 2, 9)
    for steps in (0, 3, -2):
        y = ops.DetectorShift((2, 9), steps)(x)
        wanted = torch.zeros_like(x)
        kept = slice(max(steps, 0), 9 + min(steps, 0))
        wanted[..., kept] = x[..., kept.start - steps : kept.stop - steps]
        torch.testing.assert_close(y, wanted, rtol=0, atol=1e-12)
    t = torch.arange(64, dtype=F64)
    bump = torch.exp(-0.5 * (t - 31) ** 2 / 9)[None, None]
    y = ops.DetectorShift((1, 64), 2.5)(bump)
    torch.testing.assert_close(y[0, 0], torch.exp(-0.5 * (t - 33.5) ** 2 / 9), rtol=0, atol=1e-9)


def test_what_is_turned_about_another_centre_is_the_centred_sinogram_moved():
    """Detectors that start two steps later see the same rays."""
    shape, angles = (6, 5), [0, 40, 130, 250]
    wide = ops.Radon(shape, angles, 0.5, detectors=18, detector_mm=0.7).double()
    x = draw(1, *shape)
    y = ops.BlindRotationCentre(wide).apply(x, torch.tensor([1.4], dtype=F64))
    torch.testing.assert_close(y[..., 2:], wide(x)[..., :-2], rtol=0, atol=1e-11)


def test_a_phase_common_to_all_coils_is_one_of_the_image():
    A = ops.BlindCoilPhase(coils(), MASK)
    x, z = draw(2, 2, 6, 5), A.channels(draw(2, 2, 6, 5)) * complex(math.cos(0.7), math.sin(0.7))
    turned = torch.stack([z.real, z.imag], 1)
    y = A.apply(x, torch.full((3, 1), 0.7, dtype=F64))
    torch.testing.assert_close(y, A.apply(turned, torch.zeros(3, 1).double()), rtol=0, atol=1e-11)


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="size must be odd"):
        BlindGaussianBlur((1, 4, 4), 4)
    with pytest.raises(ValueError, match="too large"):
        ops.BlindConvolution((1, 4, 4), (5, 3), "valid")
    with pytest.raises(ValueError, match=r"takes images of shape \(25,\)"):
        ops.BlindConvolution((1, 4, 4), (3, 3))(draw(2, 24))
    with pytest.raises(ValueError, match=r"shape \(3,\)"):
        ops.Packed({"a": (2,), "b": (1,)}, lambda a, b: a * b)(draw(2, 4))


def test_a_kernel_beside_its_middle_is_moved_with_its_image_and_measures_the_same():
    """By whole pixels, each row by its own; where the image does not repeat nothing is moved."""
    A = ops.BlindConvolution((2, 8, 7), (7, 5))
    kernel = torch.zeros(3, 7, 5, dtype=F64)
    kernel[0, 4:7, 3:5] = draw(3, 2).abs()
    kernel[1, 3, 2] = 1.0
    kernel[2, 0:2, 1] = 0.5
    x = draw(3, 2, 8, 7, seed=1)
    moved, k = A.in_the_middle(x, kernel)
    torch.testing.assert_close(A.apply(moved, k), A.apply(x, kernel), rtol=1e-10, atol=1e-11)
    assert torch.equal(moved[1], x[1])
    assert not torch.equal(moved[0], x[0])
    mass = A.feasible(k)
    for axis, n in ((2, 7), (1, 5)):
        middle = mass.sum(axis) @ (torch.arange(n, dtype=F64) - n // 2)
        assert float(middle.abs().max()) <= 0.5
    for family in (ops.BlindConvolution((2, 8, 7), (7, 5), "valid"), ops.BlindGamma((2, 8, 7))):
        assert family.in_the_middle(x, kernel)[0] is x
