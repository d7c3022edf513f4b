"""Operators of other libraries and functions of the user's own: what ``wrap`` makes of them, and
what it refuses."""

import copy

import numpy as np
import pytest
import scipy.sparse as sparse
import scipy.sparse.linalg as sla
import torch

import posteriori as po
from posteriori.operators.base import AdjointError
from posteriori.testing import check_operator

ops = po.operators
F64 = torch.float64


def matrix(m=7, n=12, complex=False):
    rng = np.random.default_rng(0)
    M = rng.standard_normal((m, n))
    return M + 1j * rng.standard_normal((m, n)) if complex else M


def flat(function, shape):
    """A function of flat rows as one of batches of images."""
    return lambda x: function(x.flatten(1)).view(len(x), *shape)


M = torch.from_numpy(matrix())
FORMS = {
    "matrix": lambda: ops.wrap(matrix(), (3, 4)),
    "sparse": lambda: ops.wrap(sparse.csr_matrix(matrix()), (3, 4)),
    "sparse array": lambda: ops.wrap(sparse.coo_array(matrix()), (3, 4)),
    "LinearOperator": lambda: ops.wrap(sla.aslinearoperator(matrix()), (3, 4)),
    "pair": lambda: ops.wrap(
        (flat(lambda v: v @ M.T.to(v), (7,)), flat(lambda u: u @ M.to(u), (3, 4))), (3, 4)
    ),
    "pair of NumPy": lambda: ops.wrap(
        (lambda x: matrix() @ x.reshape(-1), lambda y: (matrix().T @ y).reshape(3, 4)),
        (3, 4),
        numpy=True,
    ),
    "linear function": lambda: ops.wrap(flat(lambda v: v @ M.T.to(v), (7,)), (3, 4), linear=True),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_a_matrix_is_that_matrix(form):
    """Values, adjoint, solves and every derivative, in double precision."""
    A = FORMS[form]()
    check_operator(A)
    torch.testing.assert_close(ops.matrix(A), M)
    assert A.out_shape == (7,)


def test_a_complex_matrix_has_the_conjugate_transpose():
    A = ops.wrap(matrix(complex=True), (3, 4))
    assert A.complex_in
    assert A.complex_out
    check_operator(A)
    torch.testing.assert_close(ops.matrix(A), torch.from_numpy(matrix(complex=True)))


@pytest.mark.parametrize("form", ["sparse", "pair of NumPy"])
def test_forward_and_reverse_derivatives_of_any_order_and_func(form):
    A, x = (
        FORMS[form](),
        torch.randn(2, 3, 4, dtype=F64, generator=torch.Generator().manual_seed(0)),
    )
    value, tangent = torch.func.jvp(A, (x,), (x,))
    torch.testing.assert_close(value, tangent)
    hessian = torch.autograd.functional.hessian(lambda t: A(t).square().sum() / 2, x[:1])
    torch.testing.assert_close(hessian.reshape(12, 12), M.T @ M)
    per_row = torch.func.vmap(lambda t: A(t[None])[0])(x)
    torch.testing.assert_close(per_row, A(x))


def test_a_solver_is_the_same_on_a_wrapped_matrix_as_on_the_matrix():
    g = torch.Generator().manual_seed(1)
    prior = po.priors.Gaussian(torch.zeros(3, 4, dtype=F64), torch.eye(12, dtype=F64))
    y = torch.randn(7, dtype=F64, generator=g)
    made = [
        po.sample(
            po.Posterior(prior, po.Likelihood(y, A, po.noise.Gaussian(0.1))),
            po.methods.MMPS(),
            n=3,
            steps=6,
            seed=0,
        ).samples
        for A in (FORMS["LinearOperator"](), ops.Dense(M, (3, 4)))
    ]
    torch.testing.assert_close(*made, rtol=1e-6, atol=1e-6)


def test_a_function_that_is_not_linear_has_the_derivative_of_autograd():
    A = ops.wrap(lambda x: x.square() + x, (1, 3, 3))
    check_operator(A)
    assert not isinstance(A, ops.LinearOperator)


def test_a_network_counts_as_a_function():
    net = torch.nn.Conv2d(1, 2, 3, padding=1, bias=False).eval()
    A = ops.wrap(net, (1, 5, 5), linear=True)
    assert A.out_shape == (2, 5, 5)
    assert "Conv2d" in A.label


def test_a_black_box_is_called_and_never_differentiated():
    def rounded(x):
        return np.round(4 * x) / 4

    A = ops.wrap(rounded, (1, 3, 3), numpy=True, gradient=False)
    x = torch.rand(2, 1, 3, 3, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(A(x), (4 * x).round() / 4)
    with pytest.raises(TypeError, match="black box .*no derivative.*EnKG"):
        A.linearize(x)
    prior = po.priors.Gaussian(torch.zeros(1, 3, 3), 1.0)
    post = po.Posterior(prior, po.Likelihood(x[0], A, po.noise.Gaussian(0.2)))
    run = po.sample(post, po.methods.EnKG(), n=8, steps=4, seed=0)
    assert run.samples.isfinite().all()


def test_an_operator_of_ours_is_returned_as_it_is():
    A = ops.Identity((2, 2))
    assert ops.wrap(A) is A


def test_a_copy_shares_what_the_library_made_and_a_record_tells_operators_apart():
    A = FORMS["sparse"]()
    twin = copy.deepcopy(A)
    x = torch.ones(1, 3, 4)
    assert torch.equal(twin(x), A(x))
    assert twin.record() == A.record() == FORMS["sparse"]().record()
    other = ops.wrap(sparse.csr_matrix(2 * matrix()), (3, 4))
    assert other.record() != A.record()
    assert "scipy" in A.record()["source"]


REFUSED = {
    "an adjoint without the conjugate": (
        lambda: ops.wrap(
            (lambda x: 1j * x, lambda y: 1j * y), (2, 3), complex_in=True, complex_out=True
        ),
        AdjointError,
        "<A x, u>",
    ),
    "an adjoint of another size": (
        lambda: ops.wrap((lambda x: 2 * x, lambda y: y), (2, 3)),
        AdjointError,
        "constant 0.5",
    ),
    "an offset": (
        lambda: ops.wrap((lambda x: x + 1, lambda y: y), (2, 3)),
        ValueError,
        r"not linear.*A\(0\) has the norm",
    ),
    "a square said to be linear": (
        lambda: ops.wrap(lambda x: x.square(), (2, 3), linear=True),
        ValueError,
        "not linear.*leave linear=True out",
    ),
    "noise inside": (
        lambda: ops.wrap(lambda x: x + torch.randn_like(x), (2, 3)),
        ValueError,
        "differs between two calls",
    ),
    "no derivative": (
        lambda: ops.wrap(lambda x: x.detach().clone(), (2, 3)),
        ValueError,
        "gradient=False",
    ),
    "NumPy without an adjoint": (
        lambda: ops.wrap(np.square, (2, 3), numpy=True),
        ValueError,
        "does not pass through NumPy",
    ),
    "an array where a tensor is due": (
        lambda: ops.wrap(lambda x: x.detach().numpy(), (2, 3), gradient=False),
        TypeError,
        "numpy=True",
    ),
    "a function of one image": (
        lambda: ops.wrap(lambda x: x.sum(0), (2, 3)),
        ValueError,
        "row k",
    ),
    "complex numbers unannounced": (
        lambda: ops.wrap(lambda x: torch.complex(x, x), (2, 3)),
        ValueError,
        "complex_out",
    ),
    "no shape": (lambda: ops.wrap(torch.square), ValueError, "give in_shape"),
    "another count of numbers": (
        lambda: ops.wrap(matrix(), (5, 5)),
        ValueError,
        "25 numbers.*takes 12",
    ),
    "a word": (lambda: ops.wrap("radon", (2, 2)), TypeError, "wrap takes .*got str"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_operator_is_refused_with_what_was_seen(case):
    make, kind, words = REFUSED[case]
    with pytest.raises(kind, match=words):
        make()


# Other libraries, where they are installed; benchmarks/libraries.py prints all of them.


def test_pylops_states_its_shapes_and_its_convolution_is_a_blur():
    pylops = pytest.importorskip("pylops")
    kernel = np.random.default_rng(1).random((3, 5))
    C = pylops.signalprocessing.Convolve2D((8, 9), kernel, offset=(1, 2))
    A = ops.wrap(C)
    assert A.in_shape == A.out_shape == (8, 9)
    ours = ops.Blur(torch.from_numpy(kernel), (1, 8, 9), boundary="zero")
    x = torch.rand(2, 8, 9, dtype=F64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(A(x), ours(x[:, None])[:, 0])


def test_the_linear_projector_of_astra_is_our_radon_transform():
    astra = pytest.importorskip("astra")
    angles = np.linspace(0, np.pi, 9, endpoint=False)
    volume = astra.create_vol_geom(16, 16)
    detector = astra.create_proj_geom("parallel", 1.0, 23, angles)
    A = ops.wrap(astra.OpTomo(astra.create_projector("linear", detector, volume)))
    ours = ops.Radon((16, 16), np.rad2deg(angles).tolist(), 1.0)
    x = torch.rand(2, 16, 16, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(A(x), ours(x), rtol=1e-5, atol=1e-4)


def test_a_volume_of_astra_without_a_gpu_is_refused_and_ends_no_process(monkeypatch):
    """Its first call without one dies of SIGFPE."""
    astra = pytest.importorskip("astra")
    monkeypatch.setattr(astra, "use_cuda", lambda: False)
    detector = astra.create_proj_geom("cone", 1.0, 1.0, 5, 9, np.linspace(0, 6, 7), 30.0, 10.0)
    projector = astra.create_projector("cuda3d", detector, astra.create_vol_geom(8, 8, 4))
    with pytest.raises(RuntimeError, match="need a GPU.*ConeBeam"):
        ops.wrap(astra.OpTomo(projector))


def test_the_coils_of_sigpy_are_ours():
    linop = pytest.importorskip("sigpy.mri.linop")
    g = torch.Generator().manual_seed(0)
    maps = torch.randn(3, 8, 8, dtype=torch.complex64, generator=g)
    A = ops.wrap(linop.Sense(maps.numpy()))
    ours = ops.MultiCoilFourier(maps, torch.ones(8, 8, dtype=torch.bool))
    x = torch.randn(2, 8, 8, dtype=torch.complex64, generator=g)
    torch.testing.assert_close(A(x).flatten(2), ours(x), rtol=1e-5, atol=1e-5)
