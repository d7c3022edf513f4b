"""Half digits under a caption: whether words decide between digits that fit equally well.

    python benchmarks/text_digits.py MNIST.npz LABELS.npz [--digits 50] [--samples 8] [--steps 16]
                                     [--guidance 2] [--seed 0] [--tuned 0]

The lower half of MNIST test digits is hidden, the upper half is seen through noise 0.1 of [0, 1].
Digits are taken in order. A digit is ambiguous where a classifier gives at least a quarter of the
samples of the posterior without a caption to each of two digits, one of them its own; the other
one is the wrong caption. Only digits of which a quarter of the 20 training digits with the nearest
upper halves has another label are looked at, which saves time. Another classifier, trained on other
digits, judges the samples under no caption, the right and the wrong one ("a nine"): the share that
it gives to the right digit and to the wrong one. Each of the classifiers is a small network on half
of the training digits.

Then, on the first ``--tuned`` of these digits: latent DPS with an empty caption, P2L from an empty
caption, and TReg under the right one.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

import posteriori as po
from posteriori.methods import DPS, P2L, ReSample, TReg
from posteriori.priors.captions import phrased
from posteriori.rng import Streams

SIDE, SIGMA, NEAREST, CHUNK, SHARE = 32, 0.1, 20, 16, 0.25


def images(stack: np.ndarray) -> torch.Tensor:
    """uint8 digits as (N, 1, 32, 32) in [0, 1]."""
    padded = np.pad(stack, ((0, 0), (2, 2), (2, 2)))
    return torch.from_numpy(padded[:, None]).float() / 255


def classifier(x: torch.Tensor, labels: torch.Tensor, seed: int, steps: int = 400) -> nn.Module:
    """A small network, trained on images under up to two pixels of shift and noise 0.05."""
    torch.manual_seed(seed)
    net = nn.Sequential(
        nn.Conv2d(1, 16, 5, stride=2, padding=2),
        nn.ReLU(),
        nn.Conv2d(16, 32, 5, stride=2, padding=2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(32 * 64, 64),
        nn.ReLU(),
        nn.Linear(64, 10),
    )
    optimizer = torch.optim.Adam(net.parameters(), lr=2e-3)
    rng = np.random.default_rng(seed)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = 2e-3 * min(1.0, 2 * (1 - step / steps))
        rows = torch.from_numpy(rng.integers(len(x), size=128))
        down, right = rng.integers(-2, 3, 2)
        batch = x[rows].roll((int(down), int(right)), (2, 3))
        batch = batch + 0.05 * torch.from_numpy(rng.standard_normal(batch.shape, np.float32))
        loss = F.cross_entropy(net(batch), labels[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return net.eval()


@torch.no_grad()
def named(net: nn.Module, x: torch.Tensor) -> torch.Tensor:
    return net(x.clamp(0, 1)).argmax(1)


class Problem:
    """Halves of digits, and what is drawn of them."""

    def __init__(self, x: torch.Tensor, seed: int, steps: int, samples: int) -> None:
        self.prior, self.seed, self.steps, self.samples = (
            po.priors.text_digits(),
            seed,
            steps,
            samples,
        )
        seen = torch.arange(SIDE)[:, None].expand(SIDE, SIDE) < SIDE // 2
        self.A, law = po.operators.Mask(seen, (1, SIDE, SIDE)), po.noise.Gaussian(SIGMA)
        self.x, self.given = x, {}
        self.law = law

    def likelihood(self, k: int) -> po.Likelihood:
        if k not in self.given:
            y = self.law.sample(self.A(self.x[k : k + 1]), Streams(self.seed + 2**20, [k]))[0]
            self.given[k] = po.Likelihood(y, self.A, self.law, range=(0, 1), check=not self.given)
        return self.given[k]

    def drawn(
        self,
        ks: list[int],
        method: po.Method,
        caption: str | None,
        guidance: float,
        samples: int | None = None,
    ) -> dict[int, torch.Tensor]:
        """Samples of the posteriors of the digits ks, (n, 1, 32, 32) each."""
        prior = self.prior
        if caption is not None:
            prior = prior.conditioned(caption, guidance=guidance)
        runs = po.sample_each(
            prior,
            [self.likelihood(k) for k in ks],
            method,
            n=samples or self.samples,
            steps=self.steps,
            seed=self.seed,
            batch=CHUNK * self.samples,
        )
        return {k: run.samples for k, run in zip(ks, runs, strict=True)}

    def chi2(self, k: int, samples: torch.Tensor) -> float:
        return float(self.likelihood(k).chi2(samples).mean())


def candidates(
    x: torch.Tensor, train: torch.Tensor, labels: torch.Tensor, own: torch.Tensor
) -> list[int]:
    """Test digits of whose nearest upper halves a quarter or more has one other label."""
    rows = torch.cdist(x[:, :, : SIDE // 2].flatten(1), train[:, :, : SIDE // 2].flatten(1))
    near = labels[rows.topk(NEAREST, largest=False).indices]
    shares = F.one_hot(near, 10).float().mean(1)
    others = shares.scatter(1, own[:, None], 0).amax(1)
    return (
        ((others >= SHARE) & (shares.gather(1, own[:, None])[:, 0] >= 0.1)).nonzero()[:, 0].tolist()
    )


def chosen(
    problem: Problem, near: list[int], own: torch.Tensor, choose: nn.Module, digits: int
) -> tuple[dict[int, int], dict[int, torch.Tensor], int]:
    """The ambiguous digits with their wrong ones, their samples without caption, and how many were
    looked at."""
    wrong, free, looked = {}, {}, 0
    for first in range(0, len(near), CHUNK):
        part = near[first : first + CHUNK]
        for k, samples in problem.drawn(part, ReSample(), None, 1.0).items():
            shares = F.one_hot(named(choose, samples), 10).float().mean(0)
            right = int(own[k])
            other = shares.scatter(0, torch.tensor(right), -1.0)
            looked += 1
            if (
                len(wrong) < digits
                and float(shares[right]) >= SHARE
                and float(other.max()) >= SHARE
            ):
                wrong[k], free[k] = int(other.argmax()), samples
        print(f"{len(wrong)} ambiguous of {looked} looked at", file=sys.stderr, flush=True)
        if len(wrong) == digits:
            break
    return wrong, free, looked


def captioned(problem: Problem, said: dict[int, int], guidance: float) -> dict[int, torch.Tensor]:
    """Samples of each digit under the caption of the digit that is said of it."""
    out = {}
    for digit in sorted(set(said.values())):
        ks = [k for k, other in said.items() if other == digit]
        caption = phrased(digit, None, None)[0]
        for first in range(0, len(ks), CHUNK):
            out |= problem.drawn(ks[first : first + CHUNK], ReSample(), caption, guidance)
    return out


def tuned(problem: Problem, own: torch.Tensor, ks: list[int], samples: int) -> dict[str, dict]:
    """Samples by method."""
    out = {"DPS, empty caption": problem.drawn(ks, DPS(), "", 1.0, samples)}
    out["P2L, from an empty caption"] = problem.drawn(
        ks, P2L(tuning=4, rate=0.2, project=2), "", 1.0, samples
    )
    out["TReg, right caption"] = {}
    for k in ks:
        caption = phrased(int(own[k]), None, None)[0]
        out["TReg, right caption"] |= problem.drawn([k], TReg(), caption, 2.0, samples)
    return out


def figures(
    problem: Problem, judge: nn.Module, samples: dict[int, torch.Tensor], digit: dict[int, int]
) -> tuple[float, float]:
    """The share of samples that the judge gives to the digit of each, and chi-square: means over
    digits."""
    shares = [float((named(judge, samples[k]) == digit[k]).float().mean()) for k in samples]
    return float(np.mean(shares)), float(np.mean([problem.chi2(k, samples[k]) for k in samples]))


def least(
    judge: nn.Module,
    sets: dict[str, dict[int, torch.Tensor]],
    right: dict[int, int],
    wrong: dict[int, int],
) -> str:
    """Of how many digits the share of the right one rises under the right caption and falls under
    the wrong one, in words."""
    share = {
        name: {k: float((named(judge, x) == right[k]).float().mean()) for k, x in samples.items()}
        for name, samples in sets.items()
    }
    up = sum(share["right"][k] > share["none"][k] or share["right"][k] == 1 for k in right)
    down = sum(share["wrong"][k] < share["none"][k] or share["wrong"][k] == 0 for k in wrong)
    good = sum(share["right"][k] >= 0.9 for k in right)
    return f"up or 1 in {up}, at least 90 % in {good}, down or 0 in {down} of {len(right)}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("images", type=Path)
    parser.add_argument("labels", type=Path)
    parser.add_argument("--digits", type=int, default=50)
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--steps", type=int, default=16)
    parser.add_argument("--guidance", type=float, default=2.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tuned", type=int, default=0)
    args = parser.parse_args()
    began = time.perf_counter()
    with np.load(args.images) as data, np.load(args.labels) as told:
        train, x = images(data["train"]), images(data["test"][:2000])
        labels, own = (torch.from_numpy(told[k].astype(np.int64)) for k in ("train", "test"))
    choose = classifier(train[::2], labels[::2], 1)
    judge = classifier(train[1::2], labels[1::2], 2)
    correct = [float((named(net, x) == own[: len(x)]).float().mean()) for net in (choose, judge)]
    print(f"classifiers: {correct} of test digits, {time.perf_counter() - began:.0f} s", flush=True)
    problem = Problem(x, args.seed, args.steps, args.samples)
    near = candidates(x, train[::6], labels[::6], own[: len(x)])
    wrong, free, looked = chosen(problem, near, own, choose, args.digits)
    right = {k: int(own[k]) for k in wrong}
    sets = {
        "none": free,
        "right": captioned(problem, right, args.guidance),
        "wrong": captioned(problem, wrong, args.guidance),
    }
    lines = [
        "| Caption | Share given to the right digit | Share given to the wrong one | chi2 |",
        "|---|---:|---:|---:|",
    ]
    for name, samples in sets.items():
        (a, chi2), (b, _) = (figures(problem, judge, samples, d) for d in (right, wrong))
        lines.append(f"| {name} | {100 * a:.1f} % | {100 * b:.1f} % | {chi2:.2f} |")
    lines.append(f"every digit: {least(judge, sets, right, wrong)}")
    print("\n".join(lines), flush=True)
    more = []
    if args.tuned:
        more = ["", "| Method | Share given to the right digit | chi2 |", "|---|---:|---:|"]
        for name, samples in tuned(problem, own, list(wrong)[: args.tuned], 4).items():
            a, chi2 = figures(problem, judge, samples, right)
            more.append(f"| {name} | {100 * a:.1f} % | {chi2:.2f} |")
    facts = {
        "digits": len(wrong),
        "looked at": looked,
        "classifiers": correct,
        "seconds": round(time.perf_counter() - began),
    }
    print("\n".join([*more, json.dumps(facts)]))


if __name__ == "__main__":
    main()
