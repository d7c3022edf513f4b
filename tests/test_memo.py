"""What is kept of an operator's or a prior's numbers follows them: after a change in place, another
state, precision or copy."""

from __future__ import annotations

import copy
import gc

import pytest
import torch
from cases import OPERATORS, full_gaussian, mixture
from reference import F64, draw
from torch import nn

from posteriori import Likelihood, memo, noise
from posteriori import operators as ops
from posteriori.operators.base import LinearOperator

HOLDING = [name for name, make in OPERATORS.items() if any(True for _ in make(F64).buffers())]


def answers(A):
    """Everything an operator says, on fixed images."""
    x = draw(2, *A.in_shape, dtype=torch.complex128 if A.complex_in else F64)
    out = {"forward": A(x), "pull": A.linearize(x)[1](A(x))}
    if isinstance(A, LinearOperator):
        b = out["forward"]
        out |= {
            "adjoint": A.adjoint(b),
            "norm": torch.tensor(ops.norm2(A)),
            "solve": ops.solve(A, b, 1.0, 0.5),
            "pinv": ops.pinv(A, b),
        }
        if (spectrum := A.spectrum()) is not None:
            out |= {
                "s": spectrum.s,
                "there and back": spectrum.V(spectrum.Vh(x)),
                "U": spectrum.U(spectrum.Uh(b)),
            }
    return out


def agree(A, theirs):
    """A says what a fresh operator said."""
    mine = answers(A)
    assert mine.keys() == theirs.keys()
    for what in mine:
        torch.testing.assert_close(mine[what], theirs[what], rtol=1e-12, atol=1e-12, msg=what)


def changed(name, buffer):
    """A fresh operator whose ``buffer`` has other numbers of its kind."""
    A = OPERATORS[name](F64)
    old = A.get_buffer(buffer)
    if old.is_floating_point() or old.is_complex():
        old.mul_(1.5)
    elif buffer.endswith("order") and "back" not in buffer:
        old.copy_(old.flip(0))
    else:
        return None
    return A


@pytest.mark.parametrize("name", HOLDING)
def test_an_operator_follows_its_numbers(name):
    plain = answers(OPERATORS[name](F64))
    for buffer, _ in OPERATORS[name](F64).named_buffers():
        want = changed(name, buffer)
        if want is None:
            continue
        A, B, state = OPERATORS[name](F64), OPERATORS[name](F64), want.state_dict()
        answers(A), answers(B)
        A.get_buffer(buffer).copy_(want.get_buffer(buffer))
        want = answers(want)
        agree(A, want)
        B.load_state_dict(state)
        agree(B, want)
        # A copy made before a change knows nothing of it.
        twin = copy.deepcopy(A)
        A.load_state_dict(OPERATORS[name](F64).state_dict())
        agree(twin, want)
        agree(A, plain)


@pytest.mark.parametrize(
    "name", [name for name, make in OPERATORS.items() if isinstance(make(F64), LinearOperator)]
)
def test_an_answer_in_double_precision_does_not_remember_one_in_single(name):
    asked, fresh = OPERATORS[name](torch.float32), OPERATORS[name](torch.float32)
    x = draw(2, *asked.in_shape, dtype=torch.complex64 if asked.complex_in else torch.float32)
    asked.adjoint(asked(x)), ops.solve(asked, asked(x), 1.0, 0.5)
    x = x.to(torch.complex128 if asked.complex_in else F64)
    assert torch.equal(asked(x), fresh(x))
    assert torch.equal(asked.adjoint(asked(x)), fresh.adjoint(fresh(x)))
    torch.testing.assert_close(
        ops.solve(asked, asked(x), 1.0, 0.5), ops.solve(fresh, fresh(x), 1.0, 0.5), rtol=0, atol=0
    )


class Scaled(LinearOperator):
    """As a user may write it: a tensor and a number that are no buffers."""

    def __init__(self):
        super().__init__((3,))
        self.factor, self.gain = torch.ones(3), 2.0

    def forward(self, x):
        return self.gain * self.factor * x

    def adjoint(self, y):
        return self.gain * self.factor * y


def test_plain_tensors_and_settings_of_a_users_operator_count():
    A = Scaled()
    assert ops.norm2(A) == pytest.approx(2.0)
    A.factor[1] = 3.0
    assert ops.norm2(A) == pytest.approx(6.0)
    A.gain = 1.0
    assert ops.norm2(A) == pytest.approx(3.0)
    A.factor = torch.full((3,), 5.0)
    assert ops.norm2(A) == pytest.approx(5.0)


def test_the_adjoint_is_checked_again_when_the_operator_has_changed():
    class Crooked(Scaled):
        wrong = 1.0

        def adjoint(self, y):
            return self.wrong * super().adjoint(y)

    A, y = Crooked(), torch.zeros(3)
    Likelihood(y, A, noise.Gaussian(1.0))
    A.wrong = 2.0
    with pytest.raises(ops.AdjointError):
        Likelihood(y, A, noise.Gaussian(1.0))


def test_things_are_kept_until_a_number_changes_and_no_longer_than_their_owner():
    owner, calls = nn.Linear(2, 2), []

    def ask(*tensors):
        return memo.kept(owner, "it", lambda: calls.append(1) or len(calls), *tensors)

    assert [ask(), ask()] == [1, 1]
    with torch.no_grad():
        owner.weight.add_(1)
    assert [ask(), ask()] == [2, 2]
    owner.double()
    assert ask() == 3
    owner.weight.data = owner.weight.data.clone()
    assert ask() == 4
    assert not any(name in vars(owner) for name in ("it", "_norm2"))
    gone = nn.Linear(2, 2)
    memo.kept(gone, "it", lambda: 1)
    before = len(memo._KEPT)
    del gone
    gc.collect()
    assert len(memo._KEPT) < before
    with torch.inference_mode():
        A = ops.Dense(torch.eye(3))
        ops.norm2(A)
        A.matrix.mul_(2)
        assert ops.norm2(A) == 2.0


def test_a_prior_follows_its_numbers_and_precision():
    sigma = torch.tensor(0.7, dtype=F64)
    for make in (mixture, full_gaussian):
        prior, other = make(), make(seed=3) if make is full_gaussian else mixture()
        if make is mixture:
            other.means.add_(1.0), other.variances.mul_(2.0)
        z = draw(3, *prior.image_shape if make is mixture else prior.mean.shape)

        def says(p, z=z):
            return [
                p.denoise(z, sigma.to(z)),
                p.start(z, sigma.to(z)),
                p.know().spectral_error(0.7),
                torch.tensor(p.know().error(0.7)),
            ]

        says(prior)
        prior.load_state_dict(other.state_dict())
        torch.testing.assert_close(says(prior), says(other), rtol=1e-12, atol=1e-12)
        single = make(torch.float32)
        says(single, z.float())
        torch.testing.assert_close(
            says(copy.deepcopy(single).double()),
            says(make(torch.float32).double()),
            rtol=1e-12,
            atol=1e-12,
        )


def test_what_operators_hold_is_their_own():
    """Writing into one operator's numbers changes neither another operator nor the library's
    tables."""
    from posteriori.linalg import cosines

    for make in OPERATORS.values():
        one, other, table = make(torch.float64), make(torch.float64), cosines(8).clone()
        held = [t.clone() for t in other.buffers()]
        for tensor in one.buffers():
            if tensor.is_floating_point() or tensor.is_complex():
                tensor.mul_(2.0)
        assert all(torch.equal(a, b) for a, b in zip(other.buffers(), held, strict=True))
        assert torch.equal(cosines(8), table)
