"""A checkpoint of one's own as a prior: its network, its weights, and what it was trained with.

``python my_prior.py`` writes net.pt, a training checkpoint as others have them: here of a network
so small that its training is a formula.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from posteriori import priors

# The noise that it was trained with: 1000 betas from 1e-4 to 0.02
SCHEDULE = priors.DiscreteVP.linear()
HERE = Path(__file__).parent


class MyNetwork(nn.Module):
    """The noise in x_t = sqrt(abar_t) x0 + sqrt(1 - abar_t) z, for pixels x0 ~ N(mean, var): called
    with x_t (B, C, H, W) and t (B,)."""

    def __init__(self) -> None:
        super().__init__()
        self.mean, self.log_var = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))
        self.register_buffer("abar", torch.tensor(SCHEDULE.alphas_cumprod), persistent=False)

    def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        abar = self.abar[t].view(-1, 1, 1, 1)
        return (
            (1 - abar).sqrt()
            * (x - abar.sqrt() * self.mean)
            / (abar * self.log_var.exp() + 1 - abar)
        )


def load(weights: Path) -> priors.Prior:
    """The prior of a checkpoint. weights: its file, which is read without running any code in
    it."""
    net = MyNetwork()
    priors.load_weights(net, priors.load_state_dict_file(weights), weights)
    # This network takes whole numbers t
    schedule = priors.DiscreteVP(SCHEDULE.alphas_cumprod, integer=True)
    variance = float(net.log_var.detach().exp())
    return priors.Network(
        net,
        shape=(1, None, None),
        parametrization="eps",
        schedule=schedule,
        range=(-1.0, 1.0),
        variance=variance,
    )


def train(picture: Path, out: Path) -> None:
    """Fit the network to the pixels of a grey picture, in [-1, 1], and write its checkpoint."""
    from posteriori.measurements import read_image

    x = 2 * read_image(picture, channels=1)[0] - 1
    net = MyNetwork()
    with torch.no_grad():
        net.mean.fill_(x.mean())
        net.log_var.fill_(x.var().log())
    torch.save({"model": net.state_dict(), "epoch": 1}, out)


if __name__ == "__main__":
    train(HERE.parent / "problems" / "coffee32.png", HERE / "net.pt")
