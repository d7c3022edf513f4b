"""Many small measurements: ``sample_each`` beside a loop over ``sample``, in one process.

    python benchmarks/each.py [--measurements 256] [--steps 20] [--own] [--network]

Patches of 8 x 8 under a mixture prior, with --network under a small network, every second pixel
measured, with --own through a mask of its own for each; one sample of each. Seconds of the
processor, and their ratio. MMPS with --own --network is the E-step of ``training.em``.
"""

from __future__ import annotations

import argparse
import time
import warnings

import torch

import posteriori as po


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--measurements", type=int, default=256, help="how many (default: 256)")
    parser.add_argument(
        "--steps", type=int, default=20, help="noise levels of each run (default: 20)"
    )
    parser.add_argument("--own", action="store_true", help="a mask of its own for each measurement")
    parser.add_argument("--network", action="store_true", help="a network for the prior")
    asked = parser.parse_args()
    warnings.simplefilter("ignore")
    generator = torch.Generator().manual_seed(0)
    means = torch.randn(5, 64, generator=generator)
    prior = po.priors.GaussianMixture(torch.ones(5), means, 0.2, shape=(1, 8, 8))
    truths = prior.sample(asked.measurements, seed=1)
    if asked.network:
        torch.manual_seed(0)
        net = po.priors.UNet(1, (16, 24), (1, 1), embedding=32)
        for weights in net.parameters():  # some begin at 0
            weights.data += 0.1 * torch.randn_like(weights)
        prior = po.priors.Network(
            net, shape=(1, 8, 8), sigma_data=1.0, range=None, sigma_max=20.0, multiple=net.multiple
        )
    count, law = asked.measurements, po.noise.Gaussian(0.1)
    masks = [
        po.operators.Mask(po.operators.random_mask((8, 8), 0.5, j), (1, 8, 8))
        for j in range(count if asked.own else 1)
    ]
    likes = []
    for j, x in enumerate(truths):
        A = masks[j % len(masks)]
        likes.append(
            po.Likelihood(
                A(x[None])[0] + 0.1 * torch.randn(A.out_shape, generator=generator), A, law
            )
        )
    print(f"{asked.measurements} measurements, {asked.steps} steps; seconds of the processor")
    for method in (po.methods.DPS(), po.methods.MMPS(), po.methods.DiffPIR(), po.methods.DDRM()):
        began = time.process_time()
        each = po.sample_each(prior, likes, method, steps=asked.steps)
        middle = time.process_time()
        alone = [
            po.sample(po.Posterior(prior, like), method, steps=asked.steps, seed=j)
            for j, like in enumerate(likes)
        ]
        ended = time.process_time()
        gap = max(
            float((a.samples - b.samples).abs().max()) for a, b in zip(each, alone, strict=True)
        )
        together, loop = middle - began, ended - middle
        print(
            f"{type(method).__name__:8s} {together:7.2f} {loop:7.2f}  1/{loop / together:.1f}  "
            f"samples differ by {gap:.1g}"
        )


if __name__ == "__main__":
    main()
