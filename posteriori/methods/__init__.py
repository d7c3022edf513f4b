"""Every method, by name. One paper, one file; families are folders."""

from posteriori.methods.base import Method
from posteriori.methods.decoupled.daps import DAPS
from posteriori.methods.decoupled.diffpir import DiffPIR
from posteriori.methods.explicit.ald import ScoreALD
from posteriori.methods.explicit.ddnm import DDNM
from posteriori.methods.explicit.ddrm import DDRM
from posteriori.methods.explicit.dds import DDS
from posteriori.methods.explicit.dmps import DMPS
from posteriori.methods.explicit.dps import DPS
from posteriori.methods.explicit.dsg import DSG
from posteriori.methods.explicit.ilvr import ILVR
from posteriori.methods.explicit.lgd import LGDMC
from posteriori.methods.explicit.mcg import MCG
from posteriori.methods.explicit.mmps import MMPS
from posteriori.methods.explicit.peng import Peng
from posteriori.methods.explicit.pigdm import PiGDM
from posteriori.methods.explicit.repaint import RePaint
from posteriori.methods.explicit.scoresde import ScoreSDE
from posteriori.methods.explicit.tmpd import TMPD
from posteriori.methods.kernels import DDIM, ConstantFraction, Heun
from posteriori.methods.unconditional import Unconditional

ALL: dict[str, type[Method]] = {
    m.__name__: m
    for m in (
        Unconditional,
        DPS,
        PiGDM,
        MMPS,
        TMPD,
        DMPS,
        LGDMC,
        Peng,
        DSG,
        ScoreALD,
        ScoreSDE,
        ILVR,
        MCG,
        RePaint,
        DDNM,
        DDRM,
        DDS,
        DiffPIR,
        DAPS,
    )
}

__all__ = [
    "ALL",
    "DAPS",
    "DDIM",
    "DDNM",
    "DDRM",
    "DDS",
    "DMPS",
    "DPS",
    "DSG",
    "ILVR",
    "LGDMC",
    "MCG",
    "MMPS",
    "TMPD",
    "ConstantFraction",
    "DiffPIR",
    "Heun",
    "Method",
    "Peng",
    "PiGDM",
    "RePaint",
    "ScoreALD",
    "ScoreSDE",
    "Unconditional",
]
