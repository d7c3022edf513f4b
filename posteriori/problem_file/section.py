"""What every section of a problem file that describes an operator can do."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, ClassVar, NamedTuple

from pydantic import Field
from torch import Tensor

from posteriori.measurements import Measured, VolumeInfo
from posteriori.noise import NoiseLaw
from posteriori.operators.base import Operator
from posteriori.operators.blur import Boundary
from posteriori.priors.base import Prior
from posteriori.problem_file import noise as noises
from posteriori.problem_file.types import Number, Part

if TYPE_CHECKING:
    from posteriori.problem_file.reading import Measurement, Reading

Shape = tuple[int, ...]
Notes = tuple[str, ...]
Margins = tuple[tuple[int, int], tuple[int, int]]
OpenShare = Annotated[Number, Field(gt=0, lt=1)]


class Axis(NamedTuple):
    """Where measured pixels lie along one axis: pixel k of the image is at ``step * k + first`` of
    y."""

    step: float = 1.0
    first: float = 0.0

    @classmethod
    def of_means(cls, factor: int) -> Axis:
        """Of means over ``factor`` pixels, each of which lies in the middle of its own."""
        return cls(1 / factor, -(factor - 1) / (2 * factor))

    def after(self, before: Axis) -> Axis:
        """Of two instruments, this one the later."""
        return Axis(self.step * before.step, self.step * before.first + self.first)


class Baseline(NamedTuple):
    """What the field makes of a measurement without a learned prior: ``image`` maps y to an image
    in the range of the likelihood."""

    name: str
    image: Callable[[Tensor], Tensor]


class Ready(NamedTuple):
    """A section with all that it takes from the measurement, and what belongs to it: noise law,
    range of images, prior, sentences."""

    section: Instrument
    law: NoiseLaw
    range: tuple[float, float]
    prior: Prior
    notes: Notes = ()


class Instrument(Part):
    """A section of the file that describes an operator.

    pictures: whether it makes pictures, black and white being those of the image; whole numbers in
    a file are then read as grey levels.
    calibrates: whether it takes noise level and range from the measurement where the file does not
    state them.
    positive: whether its measurements are >= 0 for every image.
    along: whether it works along the first axis of volumes, which it then takes whole.
    """

    pictures: ClassVar[bool] = False
    along: ClassVar[bool] = False
    calibrates: ClassVar[bool] = False
    positive: ClassVar[bool] = False

    def ready(self, source: Measurement, noise: noises.NoiseSection, prior: Prior) -> Ready:
        """This section with what it leaves open taken from the measurement. Raises ``ValueError``
        where more has to be stated."""
        return Ready(self, noise.build(), noise.stated(), prior)

    def build(self, shape: Shape) -> Operator:
        """The operator for images of a shape. Raises ``ValueError`` when it cannot take them."""
        raise NotImplementedError

    def arrange(self, y: Tensor, path: str) -> Tensor:
        """The numbers of a file in the order of this operator's measurements. Raises ``ValueError``
        when they cannot be one."""
        return y

    def reading(self, how: Reading) -> Reading:
        """How a measured file is read, where this operator knows more than the file says."""
        return how

    def matched(self, y: Tensor) -> Instrument:
        """This section for measurements like y, where it leaves their size open."""
        return self

    def like(self, y: Tensor) -> Shape | None:
        """The shape of an image, where the file states none and y tells it; None where the image is
        as large as y."""
        return None

    def assuming(self, boundary: Boundary) -> Instrument:
        """This section with ``boundary`` in the place of one that is not stated: itself where none
        is left open."""
        return self

    def margins(self) -> Margins:
        """By how many pixels images are larger than their measurement: above and below, to the left
        and to the right."""
        return (0, 0), (0, 0)

    def axes(self) -> tuple[Axis, Axis, Axis] | None:
        """Where the slices, rows and columns of y lie in the image; None where y shows no scene."""
        return (Axis(), Axis(), Axis()) if self.pictorial else None

    def linear_part(self, A: Operator, y: Tensor) -> Tensor:
        """y without what A, in the unit of the image, leaves out: A x where the law is A x + b."""
        return y

    def kept(self, found: Measured, shape: Shape) -> VolumeInfo:
        """Unit and steps of an image (*shape) of which ``found`` was measured: its own where pixels
        lie upon pixels, and none where they do not."""
        same = found.axes[-2:] == "YX" and tuple(found.data.shape[-2:]) == tuple(shape[-2:])
        steps = None if found.spacing is None or not same else (None, *found.spacing[-2:])
        unit = found.unit if same else ""
        return VolumeInfo(None, unit, (), steps, found.spacing_unit)

    def pick(self, A: Operator, y: Tensor) -> Tensor | None:
        """The observed numbers of a picture with holes (or a whole k-space) y; None when y is no
        such thing."""
        return None

    def baseline(self, A: Operator) -> Baseline | None:
        """What to compare with; None where the field has no such thing."""
        return None

    def notes(self) -> Notes:
        """Sentences about the files that the operator was made from."""
        return ()

    @property
    def pictorial(self) -> bool:
        """Whether this section makes pictures of pictures."""
        return self.pictures
