"""The one registry: every operator, noise law, prior and method that the contracts sweep.

A file of the package without a case fails ``test_registry.py``.
"""

from __future__ import annotations
