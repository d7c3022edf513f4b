"""The one registry: every operator, noise law, prior and method that the contracts sweep.

A file of the package without a case fails ``test_registry.py``.
"""

from __future__ import annotations

import torch

from posteriori import operators as ops


def _draw(*size, dtype, seed=0):
    return torch.randn(*size, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def _coils(dtype, coils=3, H=6, W=5):
    return _draw(coils, H, W, dtype=dtype.to_complex(), seed=1)


# Name -> factory of a small operator; ``dtype`` is the precision of the numbers that it holds.
OPERATORS = {
    "Affine": lambda dtype: ops.Affine(ops.PhaseRetrieval((1, 4, 5)), 2.0, -1.0),
    "Blur circular": lambda dtype: ops.Blur(_draw(3, 5, dtype=dtype), (2, 6, 9)),
    "Blur circular even": lambda dtype: ops.Blur(_draw(2, 4, dtype=dtype), (1, 7, 8)),
    "Blur circular wrapped": lambda dtype: ops.Blur(_draw(9, 9, dtype=dtype), (1, 3, 12)),
    "Blur circular Gaussian": lambda dtype: ops.Blur(ops.gaussian_kernel(1.5).to(dtype), (1, 8, 8)),
    "Blur reflect": lambda dtype: ops.Blur(_draw(5, 3, dtype=dtype), (2, 7, 4), boundary="reflect"),
    "Blur reflect even": lambda dtype: ops.Blur(_draw(4, 2, dtype=dtype), (1, 5, 6), boundary="reflect"),
    "Blur zero": lambda dtype: ops.Blur(_draw(9, 9, dtype=dtype), (1, 3, 12), boundary="zero"),
    "Blur valid": lambda dtype: ops.Blur(_draw(3, 4, dtype=dtype), (2, 6, 7), boundary="valid"),
    "Chain": lambda dtype: ops.PhaseRetrieval((1, 3, 4)) @ ops.Downsample((1, 6, 8), 2).to(dtype),
    "ComplexChannels": lambda dtype: ops.ComplexChannels((2, 5, 4)),
    "Compose": lambda dtype: ops.Mask(ops.random_mask((6, 6), 0.5, 0), (1, 6, 6)) @ ops.Blur(_draw(3, 3, dtype=dtype), (1, 6, 6)),
    "Compose Fourier": lambda dtype: ops.MaskedFourier(ops.random_mask((5, 6), 0.4, 1), (5, 6)) @ ops.ComplexChannels((2, 5, 6)),
    "Compose coils": lambda dtype: ops.MultiCoilFourier(_coils(dtype), ops.random_mask((6, 5), 0.5, 2)) @ ops.ComplexChannels((2, 6, 5)),
    "Compose unitary left": lambda dtype: ops.Identity((1, 3, 4)) @ ops.Downsample((1, 9, 12), 3).to(dtype),
    "Dense wide": lambda dtype: ops.Dense(_draw(5, 12, dtype=dtype), (1, 3, 4)),
    "Dense tall": lambda dtype: ops.Dense(_draw(9, 6, dtype=dtype)),
    "Dense complex": lambda dtype: ops.Dense(_draw(4, 6, dtype=dtype.to_complex())),
    "Downsample box": lambda dtype: ops.Downsample((3, 8, 12), 4).to(dtype),
    "Downsample bicubic": lambda dtype: ops.Downsample((1, 9, 15), 3, kind="bicubic").to(dtype),
    "Downsample no antialias": lambda dtype: ops.Downsample((2, 8, 6), 2, kind="bicubic-no-antialias").to(dtype),
    "Downsample stride": lambda dtype: ops.Downsample((1, 10, 5), 5, kind="stride").to(dtype),
    "Downsample by one": lambda dtype: ops.Downsample((1, 3, 4), 1).to(dtype),
    "Grey": lambda dtype: ops.Grey((3, 5, 4)).to(dtype),
    "Grey one channel": lambda dtype: ops.Grey((3, 2, 3), weights=(0.0, -2.0, 0.0)).to(dtype),
    "Identity": lambda dtype: ops.Identity((3, 5, 4)),
    "Identity pixel": lambda dtype: ops.Identity((1,)),
    "Mask": lambda dtype: ops.Mask(ops.random_mask((5, 7), 0.4, 3), (3, 5, 7)),
    "Mask box": lambda dtype: ops.Mask(ops.box_mask((2, 6, 9), 4)),
    "MaskedFourier": lambda dtype: ops.MaskedFourier(ops.random_mask((5, 6), 0.5, 4), (2, 5, 6)),
    "MaskedFourier uncentred": lambda dtype: ops.MaskedFourier(ops.random_mask((1, 7), 0.5, 5), (4, 7), centred=False),
    "MultiCoilFourier": lambda dtype: ops.MultiCoilFourier(_coils(dtype), ops.random_mask((6, 5), 0.5, 6)),
    "Nothing": lambda dtype: ops.Nothing((2, 3, 4)),
    "PhaseRetrieval": lambda dtype: ops.PhaseRetrieval((2, 5, 4)),
    "PhaseRetrieval odd": lambda dtype: ops.PhaseRetrieval((1, 3, 7), oversampling=1.5),
    "Radon": lambda dtype: ops.Radon((2, 9, 12), [0, 30, 45, 90, 100.5, 135], 0.7).to(dtype),
    "Radon few detectors": lambda dtype: ops.Radon((11, 8), [10, 70, 200], 1.0, detectors=6, detector_mm=2.0).to(dtype),
    "Stack": lambda dtype: ops.Stack(
        ops.Downsample((1, 8, 8), 2).to(dtype),
        ops.Mask(ops.box_mask((1, 8, 8), 4)),
        ops.Blur(_draw(3, 3, dtype=dtype), (1, 8, 8), boundary="zero"),
    ),
    "Stack complex": lambda dtype: ops.Stack(
        ops.MaskedFourier(ops.random_mask((6, 5), 0.3, 7), (6, 5)), ops.MultiCoilFourier(_coils(dtype), ops.random_mask((6, 5), 0.5, 8))
    ),
}
