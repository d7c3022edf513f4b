"""Public contracts: what every operator, noise law, prior and method must satisfy, as functions for tests."""

from posteriori.testing.operators import check_operator

__all__ = ["check_operator"]
