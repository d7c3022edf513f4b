"""The ``unknown`` of a problem file: which number of the instrument nobody knows, and what is
believed of it. Image and number are then sampled together.

    operator: {name: blur, std: 2, size: 13}
    unknown: {std: {median: 1.5, factor: 1.6}}          the width of a Gaussian blur
    unknown: {kernel: {widths: [0.8, 3], spread: 0.003}}  all numbers of a kernel
    operator: {name: radon, ...}
    unknown: {offset_mm: {std: 2}}                      the axis of rotation beside the middle
    operator: {name: gamma, exponent: 2.2}
    unknown: {exponent: {factor: 1.3}}                  the exponent of a tone curve

The operator's own number is the truth of a measurement that is simulated; of a measured file it is
the middle of what is believed, where none is stated here.
"""

from __future__ import annotations

import math
from typing import Annotated, NamedTuple

import torch
from pydantic import Field, model_validator
from torch import Tensor

from posteriori import operators as ops
from posteriori.operators.base import Operator
from posteriori.packing import pack
from posteriori.priors import Gaussian, GaussianMixture, Joint, Prior
from posteriori.priors.kernels import gaussian_kernels
from posteriori.problem_file.ct import RadonEntry
from posteriori.problem_file.operator import BlurEntry, GammaEntry
from posteriori.problem_file.section import Instrument
from posteriori.problem_file.types import Number, Part, Positive, RisingPair

# Members of the family of Gaussian kernels, evenly in the logarithm of their widths.
MEMBERS = 9


class Opened(NamedTuple):
    """A family of instruments, what is believed of its parameters, and those of the operator that
    the file states."""

    family: ops.Parametric
    prior: Prior
    nominal: Tensor

    def joint(self, image: Prior, range: tuple[float, float] | None) -> Joint:
        """The prior of image and parameters, the image in ``range``."""
        ranges = {} if image.range is None or range is None else {"image": range}
        return Joint(
            {"image": image, self.family.name: self.prior},
            ranges=ranges,
            shapes={"image": self.family.image_shape},
        )

    def packed(self, image: Tensor) -> Tensor:
        """An image (*E) and the nominal parameters, as the family takes them: (d,)."""
        parts = {"image": image[None], self.family.name: self.nominal[None].to(image)}
        return pack(parts)[0]


class LogNormal(Part):
    """A number > 0 that is within ``factor`` of its ``median`` in two cases of three: its logarithm
    is Gaussian."""

    median: Positive | None = None
    factor: Annotated[Number, Field(gt=1)] = 1.5

    def prior(self, nominal: float) -> Gaussian:
        """Of the logarithm, (1,)."""
        middle = math.log(nominal if self.median is None else self.median)
        return Gaussian(torch.tensor([middle]), math.log(self.factor) ** 2)


class Normal(Part):
    """A number with a Gaussian law."""

    mean: Number = 0.0
    std: Positive


class KernelFamily(Part):
    """A kernel near a Gaussian of some width between ``widths``, each tap with a deviation of
    ``spread``; its sum is 1."""

    widths: RisingPair
    spread: Positive

    @model_validator(mode="after")
    def positive(self) -> KernelFamily:
        if not self.widths[0] > 0:
            raise ValueError(f"widths must be > 0 pixels, got {list(self.widths)}")
        return self

    def prior(self, size: int) -> GaussianMixture:
        low, high = self.widths
        widths = torch.logspace(math.log10(low), math.log10(high), MEMBERS)
        return gaussian_kernels(size, widths, self.spread)


class UnknownSection(Part):
    """Exactly one number, or kernel, of the operator that is unknown."""

    std: LogNormal | None = None
    kernel: KernelFamily | None = None
    offset_mm: Normal | None = None
    exponent: LogNormal | None = None

    @model_validator(mode="after")
    def one(self) -> UnknownSection:
        if len(self.model_fields_set) != 1:
            raise ValueError("give exactly one of std, kernel, offset_mm and exponent")
        return self

    def check(self, section: Instrument) -> None:
        """Raise ``ValueError`` where this is no number of the operator."""
        (name,) = self.model_fields_set
        kind = {"offset_mm": RadonEntry, "exponent": GammaEntry}.get(name, BlurEntry)
        if not isinstance(section, kind):
            owner = {"offset_mm": "radon", "exponent": "gamma"}.get(name, "blur")
            raise ValueError(f"unknown.{name} belongs to the operator {owner}")
        if isinstance(section, RadonEntry) and section.unit != "1/mm":
            raise ValueError("unknown.offset_mm needs the operator radon in the unit 1/mm")
        if not isinstance(section, BlurEntry):
            return
        if section.boundary == "symmetric":
            raise ValueError(
                f"unknown.{name} needs the boundary circular, reflect, zero or valid: no family of "
                f"blurs has the symmetric one"
            )
        if name == "std" and (section.std is None or not section.size or section.size % 2 == 0):
            raise ValueError(
                "unknown.std needs the operator's std and an odd size, the side of the window that "
                "the kernel of any width is cut to"
            )
        if name == "kernel" and section.kernel is not None:
            raise ValueError("unknown.kernel needs the operator's std and size, not a file")

    def opened(self, section: Instrument, A: Operator) -> Opened:
        """``section`` has passed ``check``, and made A for images of its shape."""
        if isinstance(A, ops.Blur) and isinstance(section, BlurEntry):
            kernel, boundary = A.kernel, A.boundary
            assert boundary != "symmetric"  # ``check`` refuses it
            if self.std is not None:
                family: ops.Parametric = ops.BlindGaussianBlur(
                    A.in_shape, int(section.size or 1), boundary
                )
                nominal = float(section.std or 1.0)
                return Opened(family, self.std.prior(nominal), torch.tensor([math.log(nominal)]))
            assert self.kernel is not None
            size = (kernel.shape[0], kernel.shape[1])
            return Opened(
                ops.BlindConvolution(A.in_shape, size, boundary),
                self.kernel.prior(size[0]),
                kernel,
            )
        if isinstance(A, ops.Radon) and self.offset_mm is not None:
            belief = Gaussian(torch.tensor([self.offset_mm.mean]), self.offset_mm.std**2)
            return Opened(ops.BlindRotationCentre(A), belief, torch.zeros(1))
        assert isinstance(A, ops.Gamma)
        assert self.exponent is not None
        return Opened(
            ops.BlindGamma(A.in_shape, A.toe),
            self.exponent.prior(A.exponent),
            torch.tensor([math.log(A.exponent)]),
        )
