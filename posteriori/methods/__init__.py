"""Every method, by name. One paper, one file; families are folders.

Steps from one noise level to the next (``DDIM``, ``Heun``, ``Midpoint``, ``ConstantFraction``),
settings of the methods, are in ``posteriori.methods.transitions``.

``ALL`` holds them in the order of their families. A method's file is named here once, so that
editors and type checkers see its class; a test compares this list with the files.
"""

from typing import Any, NoReturn

from posteriori.axis_kernels import AR1, OneForAll, Slerp, SquaredExponential
from posteriori.methods.adaptive.ddip import DDIP
from posteriori.methods.adaptive.scd import SCD
from posteriori.methods.axis_noise import Correlated
from posteriori.methods.base import Method
from posteriori.methods.blind.blind_dps import BlindDPS
from posteriori.methods.blind.blind_pnpdm import BlindPnPDM
from posteriori.methods.blind.fast_diffusion_em import FastDiffusionEM
from posteriori.methods.blind.gdiff import GibbsDiffusion
from posteriori.methods.blind.gibbs_ddrm import GibbsDDRM
from posteriori.methods.decoupled.daps import DAPS
from posteriori.methods.decoupled.dcdp import DCDP
from posteriori.methods.decoupled.dcpnpdp import DCPnPDP
from posteriori.methods.decoupled.diffpir import DiffPIR
from posteriori.methods.decoupled.pnpdm import PnPDM
from posteriori.methods.decoupled.resample import ReSample
from posteriori.methods.decoupled.reweighted import Reweighted
from posteriori.methods.decoupled.sitcom import SITCOM
from posteriori.methods.explicit.ald import ScoreALD
from posteriori.methods.explicit.cbg import CBG
from posteriori.methods.explicit.ddnm import DDNM
from posteriori.methods.explicit.ddrm import DDRM
from posteriori.methods.explicit.dds import DDS
from posteriori.methods.explicit.dmps import DMPS
from posteriori.methods.explicit.dps import DPS
from posteriori.methods.explicit.dsg import DSG
from posteriori.methods.explicit.enkg import EnKG
from posteriori.methods.explicit.eps import EPS
from posteriori.methods.explicit.flowchef import FlowChef
from posteriori.methods.explicit.flowdps import FlowDPS
from posteriori.methods.explicit.freedom import FreeDoM
from posteriori.methods.explicit.ilvr import ILVR
from posteriori.methods.explicit.lgd import LGDMC
from posteriori.methods.explicit.mcg import MCG
from posteriori.methods.explicit.mmps import MMPS
from posteriori.methods.explicit.mpcflow import MPCFlow
from posteriori.methods.explicit.peng import Peng
from posteriori.methods.explicit.pigdm import PiGDM
from posteriori.methods.explicit.repaint import RePaint
from posteriori.methods.explicit.scoresde import ScoreSDE
from posteriori.methods.explicit.snips import SNIPS
from posteriori.methods.explicit.tmpd import TMPD
from posteriori.methods.latent.cfg_plus_plus import CFGPlusPlus
from posteriori.methods.latent.dreamsampler import DreamSampler
from posteriori.methods.latent.p2l import P2L
from posteriori.methods.latent.psld import PSLD
from posteriori.methods.latent.stsl import STSL
from posteriori.methods.latent.treg import TReg
from posteriori.methods.smc.afdps import AFDPS
from posteriori.methods.smc.bootstrap import Bootstrap
from posteriori.methods.smc.ddsmc import DDSMC
from posteriori.methods.smc.fps import FPS
from posteriori.methods.smc.mcgdiff import MCGDiff
from posteriori.methods.smc.moments.method import MomentSMC
from posteriori.methods.smc.smcdiff import SMCDiff
from posteriori.methods.smc.tds import TDS
from posteriori.methods.transitions import DDIM, ConstantFraction, Heun, Midpoint
from posteriori.methods.unconditional import Unconditional
from posteriori.methods.variational.mgps import MGPS
from posteriori.methods.variational.reddiff import REDDiff
from posteriori.methods.variational.score_prior.method import ScorePriorVI
from posteriori.methods.volume.dds3d import DDS3D
from posteriori.methods.volume.diffusion_mbir import DiffusionMBIR
from posteriori.methods.volume.padis import PaDIS
from posteriori.methods.volume.svi import SVI
from posteriori.methods.volume.tpdm import TPDM
from posteriori.settings import absent

FAMILIES = ("explicit", "variational", "smc", "decoupled", "adaptive", "blind", "latent", "volume")

METHODS: tuple[type[Method[Any]], ...] = (
    Unconditional,
    CBG,
    DDNM,
    DDRM,
    DDS,
    DMPS,
    DPS,
    DSG,
    EnKG,
    EPS,
    FlowChef,
    FlowDPS,
    FreeDoM,
    ILVR,
    LGDMC,
    MCG,
    MMPS,
    MPCFlow,
    Peng,
    PiGDM,
    RePaint,
    SNIPS,
    ScoreALD,
    ScoreSDE,
    TMPD,
    MGPS,
    REDDiff,
    ScorePriorVI,
    AFDPS,
    Bootstrap,
    DDSMC,
    FPS,
    MCGDiff,
    MomentSMC,
    SMCDiff,
    TDS,
    DAPS,
    DCDP,
    DCPnPDP,
    DiffPIR,
    PnPDM,
    ReSample,
    Reweighted,
    SITCOM,
    DDS3D,
    DiffusionMBIR,
    PaDIS,
    SVI,
    TPDM,
    DDIP,
    SCD,
    BlindDPS,
    BlindPnPDM,
    FastDiffusionEM,
    GibbsDDRM,
    GibbsDiffusion,
    DreamSampler,
    P2L,
    PSLD,
    STSL,
    TReg,
    CFGPlusPlus,
)
ALL: dict[str, type[Method[Any]]] = {cls.__name__: cls for cls in METHODS}


def __getattr__(name: str) -> NoReturn:
    raise absent(__name__, name, ALL)


__all__ = [
    "AFDPS",
    "ALL",
    "AR1",
    "CBG",
    "DAPS",
    "DCDP",
    "DDIM",
    "DDIP",
    "DDNM",
    "DDRM",
    "DDS",
    "DDS3D",
    "DDSMC",
    "DMPS",
    "DPS",
    "DSG",
    "EPS",
    "FAMILIES",
    "FPS",
    "ILVR",
    "LGDMC",
    "MCG",
    "METHODS",
    "MGPS",
    "MMPS",
    "P2L",
    "PSLD",
    "SCD",
    "SITCOM",
    "SNIPS",
    "STSL",
    "SVI",
    "TDS",
    "TMPD",
    "TPDM",
    "BlindDPS",
    "BlindPnPDM",
    "Bootstrap",
    "CFGPlusPlus",
    "ConstantFraction",
    "Correlated",
    "DCPnPDP",
    "DiffPIR",
    "DiffusionMBIR",
    "DreamSampler",
    "EnKG",
    "FastDiffusionEM",
    "FlowChef",
    "FlowDPS",
    "FreeDoM",
    "GibbsDDRM",
    "GibbsDiffusion",
    "Heun",
    "MCGDiff",
    "MPCFlow",
    "Method",
    "Midpoint",
    "MomentSMC",
    "OneForAll",
    "PaDIS",
    "Peng",
    "PiGDM",
    "PnPDM",
    "REDDiff",
    "RePaint",
    "ReSample",
    "Reweighted",
    "SMCDiff",
    "ScoreALD",
    "ScorePriorVI",
    "ScoreSDE",
    "Slerp",
    "SquaredExponential",
    "TReg",
    "Unconditional",
]
