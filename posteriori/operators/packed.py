"""An operator on several tensors at once, which samplers see as one vector."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor

from posteriori.operators.base import Operator
from posteriori.packing import Shapes, packed_size, unpack


class Packed(Operator):
    """y = f(**parts), a differentiable function of several tensors, for x (B, d) packed from them.

    Parameters
    ----------
    shapes: name -> shape of one tensor, in the order in which they are packed (``packing.pack``).
    f: takes the tensors by name, (B, *shape) each, and gives the measurements (B, *O); row k of
        these is that of row k of the tensors.

    ``Packed({"image": (1, 8, 8), "gain": (1,)}, lambda image, gain: gain[..., None,
    None] * image)``
    goes with ``priors.Joint({"image": ..., "gain": ...})``, whose parts must have these names,
    shapes and order.
    """

    def __init__(
        self,
        shapes: Mapping[str, tuple[int, ...]],
        f: Callable[..., Tensor],
        *,
        complex_in: bool = False,
        complex_out: bool = False,
    ) -> None:
        sized = {name: tuple(shape) for name, shape in shapes.items()}
        super().__init__((packed_size(sized),), complex_in=complex_in, complex_out=complex_out)
        self.shapes, self.f = sized, f

    @property
    def in_parts(self) -> Shapes:
        return self.shapes

    def forward(self, x: Tensor) -> Tensor:
        self.check_input(x)
        return self.f(**unpack(x, self.shapes))
