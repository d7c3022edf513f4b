"""One operator per row: the samples of each measurement are those it has alone."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from cases import BRIEF, SINGLE, picture
from reference import F64, watched

import posteriori as po
from posteriori.linalg import dot
from posteriori.methods import DPS, MMPS, SITCOM
from posteriori.noise import ComplexGaussian, Gaussian
from posteriori.operators import (
    Blur,
    Dense,
    Mask,
    MaskedFourier,
    PhaseRetrieval,
    RowWise,
    matrix,
    norm2,
    pinv,
    random_mask,
    solve,
)
from posteriori.rng import Streams


def masked(count=3):
    """A prior, and measurements of its images through masks of their own."""
    post = picture()
    size = post.shape[-2:]
    likes = []
    for j in range(count):
        A = Mask(random_mask(size, 0.5, j), post.shape)
        y = A(post.prior.sample(1, j))[0] + 0.05
        likes.append(po.Likelihood(y, A, Gaussian(0.1), range=post.given.range))
    return post.prior, likes


def undersampled(count=3):
    """The same through Fourier transforms at frequencies of their own."""
    shape = (2, 1, 4, 4)
    prior = po.priors.ComplexImages(po.priors.Gaussian(torch.zeros(shape, dtype=F64), 0.5))
    likes = []
    for j in range(count):
        A = MaskedFourier(random_mask((4, 4), 0.5, j), shape[1:])
        likes.append(
            po.Likelihood(A(prior.sample(1, j))[0], A, ComplexGaussian(sigma_per_channel=0.1))
        )
    return prior, likes


PROBLEMS = {"masks": masked, "frequencies": undersampled}


@pytest.mark.parametrize("kind", PROBLEMS)
@pytest.mark.parametrize("name", SINGLE)
def test_rows_seen_by_other_operators_change_nothing(name, kind, monkeypatch):
    """Bit by bit beside equal company, and up to rounding as ``sample`` gives them in a batch of
    that size."""
    method, (prior, likes) = BRIEF[name], PROBLEMS[kind]()
    if any(method.refuses(po.Posterior(prior, like)) for like in likes):
        return
    rows = watched(monkeypatch)
    mixed = po.sample_each(prior, likes, method, n=2, steps=3, seed=4)[1]
    # With a prior in closed form each is conditioned on its own operator; images are met by one.
    assert set(rows) == {2 if method.requires & {"closed form", "images"} else 6}
    equal = po.sample_each(prior, [likes[1]] * 3, method, n=2, steps=3, seed=4)[1]
    if kind == "masks":  # a transform of six rows may round otherwise than three of two
        assert torch.equal(mixed.samples, equal.samples)
    alone = po.sample(po.Posterior(prior, likes[1]), method, n=6, steps=3, seed=5)
    scale = float(alone.samples.abs().max())
    torch.testing.assert_close(mixed.samples, alone.samples[:2], rtol=0, atol=1e-9 * scale)
    assert mixed.config["identity"] == alone.config["identity"]
    assert {key: mixed.config[key] for key in ("seed", "levels")} == {
        key: alone.config[key] for key in ("seed", "levels")
    }


def test_alike_operators_share_batches_and_others_do_not(monkeypatch):
    """Masks with equally many places do; with another number, or blurs by kernels of their own,
    each goes alone."""
    rows = watched(monkeypatch)
    prior, likes = masked()
    po.sample_each(prior, likes, MMPS(), n=2, steps=2, batch=4)
    assert rows == [4, 4, 2, 2]
    rows.clear()
    A = Mask(random_mask(prior.shape[-2:], 0.75, 3), prior.shape)
    po.sample_each(
        prior, [*likes, replace(likes[0], y=A(prior.sample(1, 3))[0], A=A)], MMPS(), n=1, steps=2
    )
    assert rows == [3, 3, 1, 1]
    rows.clear()
    blurs = [
        Blur(torch.rand(3, 3, dtype=F64, generator=torch.Generator().manual_seed(j)), prior.shape)
        for j in range(2)
    ]
    blurred = [
        po.Likelihood(B(prior.sample(1, 0))[0], B, Gaussian(0.1), range=likes[0].range)
        for B in blurs
    ]
    po.sample_each(prior, blurred, DPS(), n=1, steps=2)
    assert rows == [1, 1, 1, 1]


def test_a_folder_tells_operators_apart(tmp_path):
    prior, likes = masked()
    how = {"n": 2, "steps": 3, "seed": 1, "folder": tmp_path / "runs"}
    whole = po.sample_each(prior, likes, SITCOM(), **how)
    for run, other in zip(
        po.sample_each(prior, likes, SITCOM(), resume=True, **how), whole, strict=True
    ):
        assert torch.equal(run.samples, other.samples)
    other = [
        replace(like, A=A)
        for like, A in zip(likes, [likes[1].A, likes[0].A, likes[2].A], strict=True)
    ]
    with pytest.raises(ValueError, match="started with other settings.*operator"):
        po.sample_each(prior, other, SITCOM(), resume=True, **how)
    names = [run.config["identity"]["operator"] for run in whole]
    assert names == [like.A.record() for like in likes]


def blurs(count=3):
    return [
        Blur(torch.rand(3, 3, dtype=F64, generator=torch.Generator().manual_seed(j)), (1, 4, 5))
        for j in range(count)
    ]


KINDS = {
    "masks": lambda: [Mask(random_mask((4, 5), 0.5, j), (1, 4, 5)) for j in range(3)],
    "blurs": blurs,
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 2, 1, 0), (2, 0, 1, 2, 0)])
def test_each_row_has_its_own_operator(kind, order):
    """A, A^H, solve and A^+ of the rows are those of each; the adjoint is the transpose."""
    operators = KINDS[kind]()
    rows = RowWise([operators[j] for j in order])
    assert (rows.spectrum() is not None) == (kind == "masks")
    x, y = Streams(0, order).normal(torch.zeros(len(order), 1, 4, 5, dtype=F64)), None
    y = Streams(1, order).normal(torch.zeros(len(order), *rows.out_shape, dtype=F64))

    def each(of, t):
        return torch.cat([of(operators[j], t[k : k + 1]) for k, j in enumerate(order)])

    torch.testing.assert_close(rows(x), each(lambda A, t: A(t), x))
    torch.testing.assert_close(rows.adjoint(y), each(lambda A, t: A.adjoint(t), y))
    torch.testing.assert_close(dot(rows(x), y), dot(x, rows.adjoint(y)))
    torch.testing.assert_close(
        solve(rows, y, 0.7, 0.1), each(lambda A, t: solve(A, t, 0.7, 0.1), y), rtol=1e-8, atol=1e-8
    )
    if kind == "masks":
        torch.testing.assert_close(pinv(rows, y), each(pinv, y))
    assert norm2(rows) == max(norm2(A) for A in operators)
    leaf = x.clone().requires_grad_()
    (slope,) = torch.autograd.grad((rows(leaf) * y).sum(), leaf)
    torch.testing.assert_close(slope, rows.adjoint(y))


def test_one_operator_takes_any_number_of_rows_and_others_are_refused():
    A, B = KINDS["masks"]()[:2]
    torch.testing.assert_close(matrix(RowWise([A, A])), matrix(A))
    with pytest.raises(ValueError, match="holds operators for 2 rows, the batch has 3"):
        RowWise([A, B])(torch.zeros(3, 1, 4, 5))
    with pytest.raises(ValueError, match="at least one operator"):
        RowWise([])
    with pytest.raises(TypeError, match="PhaseRetrieval is not linear"):
        RowWise([A, PhaseRetrieval((1, 4, 5))])
    with pytest.raises(ValueError, match="rows have one shape"):
        RowWise([A, Dense(torch.eye(20)[:3], (1, 4, 5))])
