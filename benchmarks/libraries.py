"""Operators of other libraries beside ours for the same physics, wherever the library is installed.

    pip install scipy pylops astra-toolbox sigpy deepinv mrpro
    python benchmarks/libraries.py

One row an operator: ||theirs x - ours x|| / ||ours x|| for one random x, with what has to be done
to one of them where the conventions differ. docs/operators.md holds what it prints.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from torch import Tensor

import posteriori as po

ops = po.operators
SIDE = 16
Row = tuple[str, str, float]


def draw(*shape: int, complex: bool = False) -> Tensor:
    g = torch.Generator().manual_seed(0)
    return torch.rand(*shape, generator=g, dtype=torch.complex64 if complex else torch.float32)


def gap(a: Tensor, b: Tensor) -> float:
    return float((a.reshape(b.shape) - b).norm() / b.norm())


IMAGE, WAVE = draw(1, 1, SIDE, SIDE), draw(1, SIDE, SIDE, complex=True)
KERNEL = np.random.default_rng(1).random((3, 5))
WHOLE = ops.MaskedFourier(torch.ones(SIDE, SIDE, dtype=torch.bool), (SIDE, SIDE))
CARTESIAN = np.stack(np.meshgrid(*[np.arange(-SIDE // 2, SIDE // 2)] * 2, indexing="ij"), -1)


def of_scipy() -> Iterator[Row]:
    from scipy.sparse import csr_matrix

    matrix = np.random.default_rng(0).standard_normal((20, SIDE**2))
    ours = ops.Dense(torch.from_numpy(matrix).float(), (1, SIDE, SIDE))
    yield (
        "csr_matrix",
        "Dense",
        gap(ops.wrap(csr_matrix(matrix), (1, SIDE, SIDE))(IMAGE), ours(IMAGE)),
    )


def of_pylops() -> Iterator[Row]:
    from pylops.signalprocessing import FFT2D, Convolve2D

    blur = ops.Blur(torch.from_numpy(KERNEL).float(), (1, SIDE, SIDE), boundary="zero")
    theirs = ops.wrap(Convolve2D((SIDE, SIDE), KERNEL, offset=(1, 2)))
    yield (
        "Convolve2D, offset in the middle",
        "Blur, boundary zero",
        gap(theirs(IMAGE[0]), blur(IMAGE)),
    )
    how = {"norm": "ortho", "dtype": np.complex128}
    shifted = FFT2D((SIDE, SIDE), ifftshift_before=True, fftshift_after=True, **how)
    yield "FFT2D, ortho, both shifts", "MaskedFourier", gap(ops.wrap(shifted)(WAVE), WHOLE(WAVE))
    plain = ops.wrap(FFT2D((SIDE, SIDE), **how))
    yield "FFT2D, ortho, without shifts", "MaskedFourier", gap(plain(WAVE), WHOLE(WAVE))


def of_astra() -> Iterator[Row]:
    import astra

    angles = np.linspace(0, np.pi, 9, endpoint=False)
    volume = astra.create_vol_geom(SIDE, SIDE)
    detector = astra.create_proj_geom("parallel", 1.0, 23, angles)
    ours = ops.Radon((SIDE, SIDE), np.rad2deg(angles).tolist(), 1.0)
    for kind in ("linear", "line", "strip"):
        theirs = ops.wrap(astra.OpTomo(astra.create_projector(kind, detector, volume)))
        yield f"OpTomo, projector {kind}", "Radon", gap(theirs(IMAGE[0]), ours(IMAGE[0]))
    rays = astra.create_proj_geom("fanflat", 1.5, 23, 2 * angles, 30.0, 15.0)
    fan = ops.FanBeam((SIDE, SIDE), np.rad2deg(2 * angles).tolist(), 1.0, 30.0, 15.0, 23, 1.5)
    for kind in ("line_fanflat", "strip_fanflat"):
        theirs = ops.wrap(astra.OpTomo(astra.create_projector(kind, rays, volume)))
        yield f"OpTomo, projector {kind}", "FanBeam", gap(theirs(IMAGE[0]), fan(IMAGE[0]))


def of_sigpy() -> Iterator[Row]:
    import sigpy
    from sigpy.mri.linop import Sense

    maps = draw(3, SIDE, SIDE, complex=True)
    ours = ops.MultiCoilFourier(maps, torch.ones(SIDE, SIDE, dtype=torch.bool))
    yield (
        "mri.linop.Sense",
        "MultiCoilFourier",
        gap(ops.wrap(Sense(maps.numpy()))(WAVE), ours(WAVE)),
    )
    for width, oversampling in ((4, 1.25), (6, 2.0)):
        theirs = sigpy.linop.NUFFT((SIDE, SIDE), CARTESIAN * 1.0, oversampling, width)
        name = f"linop.NUFFT on the grid, width {width}, oversampling {oversampling}"
        yield name, "MaskedFourier", gap(ops.wrap(theirs)(WAVE), WHOLE(WAVE))
    k = draw(50, 2) - 0.5
    one = torch.ones(1, SIDE, SIDE, dtype=torch.complex64)
    exact = ops.NonCartesianFourier(one, k, engine="sum")
    theirs = sigpy.linop.NUFFT((SIDE, SIDE), SIDE * k.numpy(), 2.0, 6)
    name = "linop.NUFFT off the grid, width 6, oversampling 2"
    yield name, "NonCartesianFourier", gap(ops.wrap(theirs)(WAVE), exact(WAVE))


def of_deepinv() -> Iterator[Row]:
    from deepinv import physics

    kernel = torch.from_numpy(KERNEL).float()
    circular = physics.Blur(filter=kernel[None, None], padding="circular")
    ours: ops.Operator = ops.Blur(kernel, (1, SIDE, SIDE))
    yield "Blur, circular", "Blur", gap(ops.wrap(circular, (1, SIDE, SIDE))(IMAGE), ours(IMAGE))
    for factor in (2, 4):
        bicubic = physics.Downsampling(img_size=(1, SIDE, SIDE), factor=factor, filter="bicubic")
        ours = ops.Downsample((1, SIDE, SIDE), factor, kind="bicubic")
        theirs = ops.wrap(bicubic, (1, SIDE, SIDE))
        yield f"Downsampling {factor}, bicubic", "Downsample", gap(theirs(IMAGE), ours(IMAGE))
    pair = draw(1, 2, SIDE, SIDE)
    mri = ops.wrap(physics.MRI(mask=torch.ones(SIDE, SIDE), img_size=(2, SIDE, SIDE)))(pair)
    fourier = WHOLE @ ops.ComplexChannels((2, SIDE, SIDE))
    yield (
        "MRI, real and imaginary part as channels",
        "MaskedFourier @ ComplexChannels",
        gap(torch.complex(mri[:, 0], mri[:, 1]), fourier(pair)),
    )
    yield from of_cameras(physics)
    degrees = torch.arange(0, 180, 20.0)
    for side in (SIDE, SIDE + 1):
        image = draw(1, 1, side, side)
        how = {"circle": False, "normalize": False}
        tomography = physics.Tomography(angles=degrees, img_width=side, **how)
        theirs = ops.wrap(tomography, (1, side, side))(image)[0, 0].T
        radon = ops.Radon((side, side), degrees.tolist(), 1.0)(image[0])[0]
        yield f"Tomography, {side} x {side}", "Radon", nearest(theirs, radon)


def of_cameras(physics: Any) -> Iterator[Row]:
    colours = draw(1, 3, SIDE, SIDE)
    seen = colours * ops.bayer_mask("BGGR", (3, SIDE, SIDE))
    mosaic = physics.Demosaicing(img_size=(SIDE, SIDE))(colours)
    yield "Demosaicing, bayer, with 0 for hidden", "Mask(bayer_mask BGGR)", gap(mosaic, seen)
    shape = (1, SIDE, SIDE)
    camera = physics.SinglePixelCamera(m=SIDE**2, img_size=shape, fast=True)
    ours = ops.SinglePixel(shape, SIDE**2, "natural")
    yield "SinglePixelCamera, all patterns", "SinglePixel, natural", gap(camera(IMAGE), ours(IMAGE))
    shifts, probe = torch.tensor([[0, 0], [2, 3], [-3, 4]]), draw(1, 5, 6, complex=True)
    theirs = physics.phase_retrieval.PtychographyLinearOperator(shape, probe, shifts)
    first = shifts + torch.tensor([(SIDE - 5) // 2, (SIDE - 6) // 2])
    far = ops.Ptychography(theirs.probe[0, 0], first, (SIDE, SIDE))(WAVE)
    corner = torch.fft.ifftshift(far, (-2, -1))
    yield "PtychographyLinearOperator", "Ptychography", gap(theirs.A(WAVE[None]), corner)


def of_mrpro() -> Iterator[Row]:
    from mrpro.operators import FastFourierOp

    theirs = ops.wrap(FastFourierOp(dim=(-2, -1)), (1, 1, 1, SIDE, SIDE))
    yield "FastFourierOp", "MaskedFourier", gap(theirs(WAVE[None, None, None]), WHOLE(WAVE))


def nearest(theirs: Tensor, ours: Tensor) -> float:
    """The gap of sinograms (angles, detectors) of detectors that may run the other way and have
    other counts, in the best of these orders."""
    width = min(theirs.shape[1], ours.shape[1])

    def middle(t: Tensor) -> Tensor:
        first = (t.shape[1] - width) // 2
        return t[:, first : first + width]

    return min(gap(middle(t), middle(ours)) for t in (theirs, theirs.flip(1)))


LIBRARIES: dict[str, tuple[str, Callable[[], Iterator[Row]]]] = {
    "scipy": ("scipy", of_scipy),
    "pylops": ("pylops", of_pylops),
    "astra": ("astra-toolbox", of_astra),
    "sigpy": ("sigpy", of_sigpy),
    "deepinv": ("deepinv", of_deepinv),
    "mrpro": ("mrpro", of_mrpro),
}


def main() -> None:
    print("| library | theirs | ours | relative difference |\n|---|---|---|---|")
    for name, (distribution, rows) in LIBRARIES.items():
        try:
            for theirs, ours, off in rows():
                said = f"{name} {version(distribution)}"
                print(f"| {said} | {theirs} | `{ours}` | {off:.1e} |", flush=True)
        except ImportError as error:
            print(f"| {name} | not installed: {error} | | |")


if __name__ == "__main__":
    main()
