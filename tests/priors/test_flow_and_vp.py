"""One prior as a rectified flow and as a variance-preserving network: in VE coordinates every
method walks the same way."""

from __future__ import annotations

import warnings

import pytest
import torch
from cases import BRIEF, full_gaussian, mixture, wrapped
from reference import draw

import posteriori as po
from posteriori import methods
from posteriori.methods.transitions import DDIM, Heun

COPIES = ("flow", "flow flipped", "eps linear", "v linear")
FLOW = DDIM(0.0)
# No step of these draws a number: from one start they go one way.
DETERMINISTIC = {
    "Unconditional": methods.Unconditional(FLOW),
    "Unconditional Heun": methods.Unconditional(Heun()),
    "DPS": methods.DPS(transition=FLOW),
    "DPS norm": methods.DPS("norm", 0.1, FLOW),
    "PiGDM": methods.PiGDM(transition=FLOW),
    "MMPS": methods.MMPS(transition=FLOW),
    "TMPD": methods.TMPD(transition=FLOW),
    "DMPS": methods.DMPS(transition=FLOW),
    "DDS": methods.DDS(transition=FLOW),
    "DDS network": methods.DDS("fixed", direction="network", transition=FLOW),
    "DiffPIR": methods.DiffPIR(transition=Heun()),
    "Peng": methods.Peng(transition=FLOW),
    "FlowDPS": methods.FlowDPS(fresh=0.0),
    "FlowDPS norm": methods.FlowDPS("norm", 0.1, fresh=0.0),
    "FlowChef": methods.FlowChef(),
    "FlowChef squared": methods.FlowChef("squared", 0.1),
    "MPCFlow": methods.MPCFlow(),
    "MPCFlow horizon": methods.MPCFlow("horizon"),
}


def posterior(prior):
    d = prior.shape[0]
    A = po.operators.Dense(draw(2, d, seed=4))
    y = A(draw(1, d, seed=5))[0]
    return po.Posterior(prior, po.Likelihood(y, A, po.noise.Gaussian(0.2)))


def path(prior, method, levels):
    """The rows at every level of a run."""
    rows = []
    run = po.sample(
        posterior(prior),
        method,
        n=2 * method.returned,
        grid=levels,
        watch=[lambda k, sigma, x, info: rows.append(x.clone())],
    )
    return torch.stack([*rows, run.samples] if method.group == 1 else [run.samples])


@pytest.mark.parametrize("make", [full_gaussian, mixture], ids=["gaussian", "mixture"])
@pytest.mark.parametrize("name", DETERMINISTIC)
def test_a_deterministic_sampler_walks_the_same_way_on_every_copy(name, make):
    copies, levels = wrapped(make()), po.grid.karras(8, 50.0, 0.05)
    want = path(copies["eps linear"], DETERMINISTIC[name], levels)
    for copy in COPIES:
        found = path(copies[copy], DETERMINISTIC[name], levels)
        torch.testing.assert_close(found, want, rtol=1e-6, atol=1e-6, msg=lambda m: f"{copy}: {m}")


def test_so_does_every_explicit_and_decoupled_method_with_the_same_numbers():
    """Noise is drawn by the seed and the row, not by the network. Methods that ask for a closed
    form, or that a network cannot serve, refuse both copies alike."""
    copies, levels, ran = wrapped(full_gaussian()), po.grid.karras(2, 5.0, 0.05), 0
    for name, method in BRIEF.items():
        if method.family not in ("explicit", "decoupled"):
            continue
        posts = [posterior(copies[copy]) for copy in ("eps linear", "flow")]
        refusals = [method.refuses(post) for post in posts]
        assert (refusals[0] is None) == (refusals[1] is None)
        if refusals[0] is not None:
            continue
        with warnings.catch_warnings(action="ignore"):
            one, other = (path(copies[copy], method, levels) for copy in ("eps linear", "flow"))
        torch.testing.assert_close(
            other, one, rtol=1e-5, atol=1e-5, msg=lambda m, name=name: f"{name}: {m}"
        )
        ran += 1
    assert ran > 40
