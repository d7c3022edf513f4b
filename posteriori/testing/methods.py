"""The contract of a method: a pure step, rows that do not know each other, and claims that hold."""

from __future__ import annotations

import json
from dataclasses import FrozenInstanceError, fields
from typing import Any

import torch

from posteriori.checkpoint import leaves
from posteriori.driver import sample
from posteriori.grid import GridName
from posteriori.likelihood import Posterior
from posteriori.methods.base import Method, method_settings
from posteriori.methods.courses import course_of
from posteriori.rng import Streams
from posteriori.testing.claims import CLAIMS, check_claims


def check_method(
    method: Method[Any], post: Posterior, *, steps: int = 5, seed: int = 0, claims: bool = True
) -> None:
    """Check a method on a posterior that it accepts. Raises ``AssertionError`` saying which rule is
    broken, with numbers.

    - hyper-parameters are frozen and can be written as JSON; reference, family and cost are stated;
    - same seed, same samples; another seed, other samples;
    - sample k is the same alone and in a batch (a norm, a CG scalar or a step size over the batch
      breaks this);
    - the step is pure: the same state and random numbers give the same result, and the state is not
      changed in place;
    - no state carries an autograd graph, and a run counts its denoiser calls;
    - weights are per row, float64;
    - its claims are among ``CLAIMS``, and hold: each is checked on problems of its own, as
      ``check_claims`` does. A class claims for its default setting; of another setting, or without
      ``claims`` (which takes seconds), the names alone are looked at.
    """
    name = type(method).__name__
    for f in fields(method):
        try:
            setattr(method, f.name, getattr(method, f.name))
        except FrozenInstanceError:
            continue
        raise AssertionError(
            f"{name}: the hyper-parameter {f.name} can be changed; methods are frozen dataclasses"
        )
    json.dumps(method_settings(method))
    for told in ("reference", "family", "cost"):
        assert getattr(method, told), (
            f"{name} states no {told}; a method of the library has all three, see Method"
        )
    assert method.refuses(post) is None, (
        f"{name} refuses the posterior it is checked on: {method.refuses(post)}"
    )
    n = 3 * method.returned
    # Levels of a paper may be hundreds of times wider than the images, where rounding alone parts
    # rows.
    grid: GridName | None = "karras" if course_of(method) else None
    run = sample(post, method, n=n, steps=steps, seed=seed, grid=grid)
    assert tuple(run.samples.shape) == (n, *post.given.A.in_shape), (
        f"{name}: samples have shape {tuple(run.samples.shape)}"
    )
    assert run.log_w.shape == (n,), f"{name}: log_w has shape {tuple(run.log_w.shape)}"
    assert run.log_w.dtype == torch.float64, (
        f"{name}: log-weights are {run.log_w.dtype}, not float64"
    )
    closed = "closed form" in method.requires
    assert closed or run.counts["denoiser"] > 0, f"{name}: no denoiser call was counted"
    again = sample(post, method, n=n, steps=steps, seed=seed, grid=grid)
    assert torch.equal(run.samples, again.samples), f"{name}: the same seed gave other samples"
    other = sample(post, method, n=n, steps=steps, seed=seed + 1, grid=grid)
    assert not torch.equal(run.samples, other.samples), (
        f"{name}: another seed gave the same samples"
    )
    alone = sample(post, method, n=n, steps=steps, seed=seed, batch=method.group, grid=grid)
    tolerance = 1e-9 if run.samples.real.dtype == torch.float64 else 2e-4
    gap = float((alone.samples - run.samples).abs().max() / run.samples.abs().max())
    assert gap < tolerance, (
        f"{name}: sample values change by {gap:.2g} (relative) when they are drawn alone: "
        "rows influence each other"
    )
    _check_pure(method, post)
    unknown = sorted(method.claims - CLAIMS.keys())
    assert not unknown, (
        f"{name} claims {unknown[0]!r}, which no check proves; known: {'; '.join(CLAIMS)}"
    )
    if claims and method == _default(type(method)):
        check_claims(method)


def _default(kind: type[Method[Any]]) -> Method[Any] | None:
    """The default setting of a class; None when a setting has to be given."""
    try:
        return kind()
    except TypeError:
        return None


def _check_pure(method: Method[Any], post: Posterior) -> None:
    name = type(method).__name__
    rows = 2 * method.group
    rng = Streams(3, range(2), method.group)
    dtype = post.likelihood.y.real.dtype
    blank = torch.zeros(
        rows, *post.shape, dtype=dtype.to_complex() if post.prior.complex else dtype
    )
    sigma = torch.tensor(post.prior.sigma_max, dtype=torch.float64)
    with torch.no_grad():
        state = method.init(post, post.prior.start(rng.normal(blank), sigma), rng)
        kept = [leaf.clone() for leaf in leaves(state)]
        position = rng.state()
        first, info = method.step(post, state, sigma, sigma / 2, rng)
        for before, after in zip(kept, leaves(state), strict=True):
            assert torch.equal(before, after), f"{name}: step changed its input state in place"
        rng.restore(position)
        second, _ = method.step(post, state, sigma, sigma / 2, rng)
    for a, b in zip(leaves(first), leaves(second), strict=True):
        assert torch.equal(a, b), (
            f"{name}: the same state and random numbers gave two results; the step is not pure"
        )
        assert not a.requires_grad, f"{name}: the state carries an autograd graph from step to step"
    for key, value in info.items():
        assert value.shape == (rows,), (
            f"{name}: info[{key!r}] has shape {tuple(value.shape)}, "
            f"expected one number per row ({rows},)"
        )
