"""A measured k-space of several coils, thinned to a quarter of its columns and reconstructed by the
brain MRI prior, by zero filling and by total variation.

    python benchmarks/brain_kspace.py full.cfl --out docs/results/brain-kspace.json

full.cfl: a fully sampled slice in the format of BART. Of its columns the middle 16 are kept and
others at random. The prior knows magnitudes: the image is taken for a real one behind the phase
that the middle columns show, as ``operator: mri`` does; coil maps are those of ESPIRiT by sigpy
(``pip install sigpy``), or, with --maps low-resolution, the low-resolution coil images over their
root of the sum of squares. Both are made from the kept columns alone, as are the noise level and
white.

Each method is run three times: with the noise level that the border of k-space tells; with the one
that the residual of the first run tells, which holds what the phase is off; and with the first
noise level and a second part of the image in quadrature to the phase, white and Gaussian of the
variance that accounts for that residual,

    chi-square - 1 = q^2 / (2 coils sigma^2),

since an image whose pixels have variance q^2 has q^2 / coils in a point of one coil.

The reference is the root of the sum of squares of all of the k-space, and takes part in nothing but
the scores: PSNR over its largest value, SSIM between 0 and that. Zero filling is scored twice, as
combined by the maps and as a root of the sum of squares. Total variation is of the same real image
behind the same phase, and of a complex image; its weight is the one of nine that is best for this
very reference.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from brain_mri import covered, loaded
from chest_ct import total_variation
from torch import Tensor

import posteriori as po
from posteriori.evaluation import psnr, ssim
from posteriori.linalg import dot
from posteriori.measurements import kspace, read_array
from posteriori.operators.base import LinearOperator

KEPT, MIDDLE, SAMPLES = 4, 16, 4
METHODS = {
    "DDS": po.methods.DDS(iterations=10),
    # Without a spectrum of A the preconditioner costs more than it saves.
    "MMPS": po.methods.MMPS(iterations=3, precondition=False),
}
WEIGHTS = [1e-3 * 2**k for k in range(-3, 6)]  # of white


def thinned(k: Tensor, seed: int) -> Tensor:
    """The mask (H, W), true in the columns that are kept."""
    width = k.shape[-1]
    first = width // 2 - MIDDLE // 2
    inside = np.arange(first, first + MIDDLE)
    others = np.setdiff1d(np.arange(width), inside)
    chosen = np.random.default_rng(seed).choice(others, width // KEPT - MIDDLE, replace=False)
    mask = torch.zeros(k.shape[-2:], dtype=torch.bool)
    mask[:, torch.from_numpy(np.concatenate([inside, chosen]))] = True
    return mask


def back(k: Tensor) -> Tensor:
    """Coil images of whole k-spaces."""
    axes = (-2, -1)
    return torch.fft.fftshift(torch.fft.ifft2(torch.fft.ifftshift(k, axes), norm="ortho"), axes)


def problem(k: Tensor, mask: Tensor, maps_by: str) -> tuple[po.Likelihood, Tensor]:
    """The likelihood of a real image behind its phase, and the maps: from kept columns alone."""
    kept = k * mask
    block = kspace.centre_block(mask)
    low = kspace.low_resolution(kept, block)
    maps = kspace.espirit(kept, block) if maps_by == "espirit" else kspace.sensitivities(low)
    phase = kspace.phase_factor(kept, mask, maps)
    coils = po.operators.MultiCoilFourier(maps, mask)
    A = coils @ po.operators.PhaseMap(phase)
    y = coils.select(kept)
    level = float(kspace.kspace_noise_level(kept, mask).square().mean().sqrt())
    white = float(coils.adjoint(y[None])[0].abs().double().quantile(0.999))
    law = po.noise.ComplexGaussian(sigma_per_channel=level)
    return po.Likelihood(y, A, law, range=(0, white)), maps


class OneChannel(LinearOperator):
    """Complex images (1, H, W) as (H, W)."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__((1, *shape), complex_in=True, complex_out=True)

    def forward(self, x: Tensor) -> Tensor:
        return x[:, 0]

    def adjoint(self, y: Tensor) -> Tensor:
        return y[:, None]


def with_quadrature(like: po.Likelihood, prior, chi2: float) -> po.Posterior:
    """The image with a part in quadrature that accounts for a residual of ``chi2``. One unit of
    noise is as much in both parts."""
    coils, phase, white = like.A.A, like.A.B.phase, like.range[1]
    std = float(like.std) * (2 * len(coils.sensitivities) * max(chi2 - 1, 0.01)) ** 0.5
    shape = (1, *phase.shape)
    pair = po.priors.Joint(
        {"image": prior, "quadrature": po.priors.Gaussian(torch.zeros(shape), std**2)},
        units={"image": 1.0, "quadrature": white / 2},
        ranges={"image": like.range},
        shapes={"image": shape},
    )
    A = coils @ po.operators.Quadrature(phase)
    return po.Posterior(pair, po.Likelihood(like.y, A, like.noise))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("kspace", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--prior", type=Path, help="a folder; the one that ships when left out")
    parser.add_argument("--maps", choices=["espirit", "low-resolution"], default="espirit")
    parser.add_argument("--methods", nargs="*", default=["MMPS"], choices=list(METHODS))
    parser.add_argument("--steps", type=int, default=16)
    parser.add_argument("--seeds", type=int, default=3, help="masks (default: 3)")
    asked = parser.parse_args()
    prior = loaded(asked.prior) if asked.methods else None
    record = json.loads(asked.out.read_text()) if asked.out.exists() else {}
    k = kspace.arranged(read_array(asked.kspace), str(asked.kspace)).to(torch.complex64)
    kspace.check_centre(k, True)
    reference = back(k).abs().square().sum(0).sqrt()[None]
    top = float(reference.max())

    def scores(x: Tensor) -> dict[str, float]:
        x = x.float().clamp(0, top).view(1, 1, *reference.shape[1:])
        return {
            "psnr": round(float(psnr(x, reference[None], top)[0]), 2),
            "ssim": round(float(ssim(x, reference[None], (0, top))[0]), 4),
        }

    def misfits(like: po.Likelihood, full: Tensor) -> dict[str, float]:
        """Chi-square of the image of all of the k-space, as a complex one and as its real part
        behind the phase, and the scores of that part."""
        real = (full * like.A.B.phase.conj()).real
        left = {
            "complex": like.y - like.A.A(full[None])[0],
            "real": like.y - like.A(real[None, None])[0],
        }
        count = 2 * like.std**2 * like.y.numel()
        chi2 = {
            f"chi2, {kind}": round(float(dot(r[None], r[None])) / count, 2)
            for kind, r in left.items()
        }
        return {**chi2, **scores(real)}

    def keep(place: str, make) -> None:
        if place not in record:
            record[place] = make()
            print(place, record[place], flush=True)
            asked.out.write_text(json.dumps(record, indent=1) + "\n")

    def solved(post: po.Posterior, like: po.Likelihood, method: str) -> dict[str, object]:
        began = time.process_time()
        run = po.sample(post, METHODS[method], n=SAMPLES, steps=asked.steps, seed=0)
        seconds, x = time.process_time() - began, run.samples
        rest = like.y - like.A(x)
        chi2 = dot(rest, rest) / (2 * like.std**2 * like.y.numel())
        if run.parts:  # the modulus of image and quadrature
            x = torch.stack([part.samples for part in run.parts.values()]).square().sum(0).sqrt()
        head = reference > 0.05 * top
        return {
            **scores(x.mean(0)),
            "psnr of one sample": scores(x[0])["psnr"],
            "chi2": round(float(chi2.mean()), 3),
            "coverage": covered(replace(run, samples=x), reference, head),
            "seconds": round(seconds, 1),
        }

    for seed in range(asked.seeds):
        mask = thinned(k, seed)
        like, maps = problem(k, mask, asked.maps)
        white = like.range[1]
        name = f"mask {seed}, {asked.maps} maps"
        full = (maps.conj() * back(k)).sum(0)
        keep(f"{name}, all of the k-space", lambda x=full: scores(x.abs()))
        keep(f"{name}, model", lambda a=like, x=full: misfits(a, x))
        zero = like.A.A.adjoint(like.y[None])[0].abs()
        keep(f"{name}, zero filling", lambda x=zero: scores(x))
        squares = back(k * mask).abs().square().sum(0).sqrt()
        keep(f"mask {seed}, zero filling, root of the sum of squares", lambda x=squares: scores(x))
        for w in WEIGHTS:
            keep(
                f"{name}, TV {w:g}",
                lambda a=like, w=w * white: scores(total_variation(a.A, a.y[None], w)[0]),
            )
            keep(
                f"{name}, TV of a complex image {w:g}",
                lambda a=like, w=w * white: scores(
                    total_variation(a.A.A @ OneChannel(a.A.A.in_shape), a.y[None], w)[0].abs()
                ),
            )
        for method in asked.methods:
            place = f"{name}, {method} of {asked.steps} steps"
            first = po.Posterior(prior, like)
            keep(place, lambda p=first, a=like, m=method: solved(p, a, m))
            chi2 = record[place]["chi2"]
            law = po.noise.ComplexGaussian(sigma_per_channel=chi2**0.5 * like.std)
            again = po.Likelihood(like.y, like.A, law, range=like.range)
            second = po.Posterior(prior, again)
            keep(
                f"{place}, noise of its residual",
                lambda p=second, a=again, m=method: solved(p, a, m),
            )
            third = with_quadrature(like, prior, chi2)
            keep(
                f"{place}, with quadrature",
                lambda p=third, m=method: solved(p, p.given, m),
            )


if __name__ == "__main__":
    main()
