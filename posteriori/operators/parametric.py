"""Families of instruments y = A(x; phi): known up to a few numbers phi, as a blur of unknown
width."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor

from posteriori.linalg import real_view
from posteriori.operators.base import Operator
from posteriori.packing import Shapes, packed_size, unpack


class Parametric(Operator):
    """y = A(x; phi). An author writes ``apply`` (in place of torch's function of that name) and
    ``at``.

    As an operator it takes the pair packed, (B, d) from x and phi in this order, so that
    ``priors.Joint({"image": ..., NAME: ...})`` makes a posterior over both; ``at(phi)`` is the
    operator on x alone where phi is known.

    Attributes
    ----------
    image_shape: E, of x. name, parameters_shape: name and shape P of phi.
    linear_in_image: whether y is linear in x for a known phi; bilinear: whether it is linear in phi
        for a known x as well.
    """

    linear_in_image: bool = True
    bilinear: bool = False

    def __init__(
        self,
        image_shape: tuple[int, ...],
        name: str,
        shape: tuple[int, ...],
        *,
        complex_out: bool = False,
    ) -> None:
        sized = {"image": tuple(image_shape), name: tuple(shape)}
        super().__init__((packed_size(sized),), complex_out=complex_out)
        self.image_shape, self.parameters_shape, self.name = tuple(image_shape), tuple(shape), name

    @abstractmethod
    def apply(self, x: Tensor, phi: Tensor) -> Tensor:  # type: ignore[override]
        """A(x; phi), differentiable in both: x (B, *E), phi (P) for all rows or
        (B, *P) -> (B, *O)."""

    @abstractmethod
    def at(self, phi: Tensor) -> Operator:
        """x -> A(x; phi) for one phi (P), without a gradient to it: a ``LinearOperator`` with its
        adjoint, and what else it knows of itself, where the family is linear in x."""

    def transfer(self, phi: Tensor) -> Tensor | None:
        """Of a family that convolves an image which repeats beyond its border: the Fourier
        transform (B, H, W) of the kernels of parameters phi (B, *P), with which it multiplies that
        of each channel. None for others, which is the default."""
        return None

    def feasible(self, phi: Tensor) -> Tensor:
        """Parameters (B, *P) brought to where they have a meaning, such as taps >= 0 of sum 1;
        differentiable. By default phi itself."""
        return phi

    def in_the_middle(self, x: Tensor, phi: Tensor) -> tuple[Tensor, Tensor]:
        """Another x (B, *E) and phi (B, *P) that measure the same, where y does not tell them from
        these: those nearest to the middle. By default they themselves."""
        return x, phi

    def gram(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """X^T X (B, P, P) and X^T y (B, P) of the matrix X of phi -> A(x; phi), of a family that is
        linear in phi: for each row of x (B, *E) and y (B, *O), complex numbers as pairs, P numbers
        of phi in a row, in double precision. By default from the P images of unit parameters."""
        size = packed_size({self.name: self.parameters_shape})
        units = torch.eye(size, dtype=x.real.dtype, device=x.device)
        G, h = [], []
        for row, seen in zip(x, y, strict=True):
            each = row.expand(size, *row.shape)
            X = self.apply(each, units.view(-1, *self.parameters_shape))
            X = real_view(X).flatten(1).double()
            G.append(X @ X.T)
            h.append(X @ real_view(seen).flatten().double())
        return torch.stack(G), torch.stack(h)

    def read(self, phi: Tensor) -> dict[str, Tensor]:
        """Parameters (B, *P) as a person reads them: a name with its unit -> numbers (B, ...). By
        default phi itself."""
        return {self.name: phi}

    def told(self, x: Tensor) -> dict[str, Tensor]:
        return self.read(unpack(x, self.in_parts)[self.name])

    @property
    def in_parts(self) -> Shapes:
        return {"image": self.image_shape, self.name: self.parameters_shape}

    def forward(self, x: Tensor) -> Tensor:
        self.check_input(x)
        return self.apply(*unpack(x, self.in_parts).values())
