"""Every method, by name. One paper, one file; families are folders."""

from posteriori.methods.base import Method
from posteriori.methods.decoupled.daps import DAPS
from posteriori.methods.decoupled.diffpir import DiffPIR
from posteriori.methods.explicit.dps import DPS
from posteriori.methods.explicit.mmps import MMPS
from posteriori.methods.explicit.pigdm import PiGDM
from posteriori.methods.kernels import DDIM, ConstantFraction, Heun
from posteriori.methods.unconditional import Unconditional

ALL: dict[str, type[Method]] = {m.__name__: m for m in (Unconditional, DPS, PiGDM, MMPS, DiffPIR, DAPS)}

__all__ = ["ALL", "DAPS", "DDIM", "DPS", "MMPS", "ConstantFraction", "DiffPIR", "Heun", "Method", "PiGDM", "Unconditional"]
