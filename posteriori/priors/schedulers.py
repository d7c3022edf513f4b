"""What the scheduler file of the ``diffusers`` library says about the training of a network, for a
closed list of schedulers.

A scheduler is a sampler; what matters here is what it takes the network's output and time label to
mean. Three kinds are known:

    betas   x_net = sqrt(abar_t) x0 + sqrt(1 - abar_t) z, told t of 0 .. T - 1; CogVideoX's
            divide abar / (1 - abar) by snr_shift_scale
    EDM     told ln(sigma) / 4 (``posteriori.priors.edm``); with prediction_type v_prediction the
            network has the other sign
    flow    x_net = (1 - t) x0 + t z, told T t, velocity z - x0; their shifts move the
            sampler's grid only

A key that a file leaves out has the default of its own class, which is not the same for all of
them.
"""

from __future__ import annotations

import warnings
from typing import Any, NamedTuple

import numpy as np

from posteriori.priors.network import Parametrization
from posteriori.priors.schedule import DiscreteVP, RectifiedFlow, Schedule

PREDICTIONS: dict[str, Parametrization] = {"epsilon": "eps", "v_prediction": "v", "sample": "x0"}
Betas = tuple[float, float, str]
DDPM: Betas = (1e-4, 0.02, "linear")
FAST: Betas = (0.00085, 0.012, "linear")
LATENT: Betas = (0.00085, 0.012, "scaled_linear")
# Class -> beta_start, beta_end, beta_schedule where the file does not give them.
BETAS: dict[str, Betas] = {
    "CogVideoXDDIMScheduler": LATENT,
    "CogVideoXDPMScheduler": LATENT,
    "DDIMParallelScheduler": DDPM,
    "DDIMScheduler": DDPM,
    "DDPMParallelScheduler": DDPM,
    "DDPMScheduler": DDPM,
    "DEISMultistepScheduler": DDPM,
    "DPMSolverMultistepScheduler": DDPM,
    "DPMSolverSDEScheduler": FAST,
    "DPMSolverSinglestepScheduler": DDPM,
    "EulerAncestralDiscreteScheduler": DDPM,
    "EulerDiscreteScheduler": DDPM,
    "HeunDiscreteScheduler": FAST,
    "KDPM2AncestralDiscreteScheduler": FAST,
    "KDPM2DiscreteScheduler": FAST,
    "LCMScheduler": LATENT,
    "LMSDiscreteScheduler": DDPM,
    "PNDMScheduler": DDPM,
    "RePaintScheduler": DDPM,
    "SASolverScheduler": DDPM,
    "TCDScheduler": LATENT,
    "UnCLIPScheduler": (1e-4, 0.02, "squaredcos_cap_v2"),
    "UniPCMultistepScheduler": DDPM,
}
SHIFTS = {"CogVideoXDDIMScheduler": 3.0, "CogVideoXDPMScheduler": 3.0}
EDM = ("EDMDPMSolverMultistepScheduler", "EDMEulerScheduler")
EDM_DEFAULTS = {"sigma_data": 0.5, "sigma_min": 0.002, "sigma_max": 80.0}
FLOW = ("FlowMatchEulerDiscreteScheduler", "FlowMatchHeunDiscreteScheduler")
# Few-step samplers of distilled networks, whose output is one image rather than the mean of all
# that fit.
DISTILLED = ("LCMScheduler", "TCDScheduler")
REASONS = {
    "CMStochasticIterativeScheduler": (
        "a consistency model jumps to one image, it does not average over images"
    ),
    "DDPMWuerstchenScheduler": (
        "it tells the network a share of a cosine, and the images are latents"
    ),
    "IPNDMScheduler": "its levels come from no list of betas",
    "KarrasVeScheduler": "it tells the network sigma: schedule=VE(...)",
    "ScoreSdeVeScheduler": "it tells the network sigma: parametrization='score', schedule=VE(...)",
    "ScoreSdeVpScheduler": (
        "time is continuous: parametrization='score', schedule=ContinuousVP(...)"
    ),
}
# Settings that change what label or output mean, and that no schedule here has.
FOREIGN = {
    "invert_sigmas": (False, None),
    "use_flow_sigmas": (False, None),
    "timestep_type": ("discrete", None),
}
BY_HAND = (
    "build the UNet2DModel yourself and wrap it in Network(net, parametrization=..., schedule=...)"
)


class Training(NamedTuple):
    """Arguments of ``Network``. negative: its output has the other sign."""

    parametrization: Parametrization
    schedule: Schedule | None
    sigma_data: float | None = None
    sigma_min: float | None = None
    sigma_max: float | None = None
    negative: bool = False


def training(config: dict[str, Any], source: object, *, integer: bool) -> Training:
    """integer: the network has an embedding of whole timesteps. Raises ``ValueError`` naming file
    and scheduler for every other one, and for settings under which label or output mean something
    else."""
    kind = config.get("_class_name")
    if kind not in (*BETAS, *EDM, *FLOW):
        reason = f" ({REASONS[kind]})" if kind in REASONS else ""
        raise ValueError(
            f"{source} names the scheduler {kind!r}{reason}; "
            f"known are {', '.join(sorted((*BETAS, *EDM, *FLOW)))}. "
            f"If the network was trained otherwise, {BY_HAND}"
        )
    for key, usual in FOREIGN.items():
        if config.get(key) not in usual:
            raise ValueError(
                f"{source}: a {kind} with {key}={config[key]!r} asks the network in another way; "
                f"{BY_HAND}"
            )
    if kind not in SHIFTS and config.get("snr_shift_scale") not in (None, 1, 1.0):
        raise ValueError(
            f"{source}: a {kind} has no snr_shift_scale, "
            f"got {config['snr_shift_scale']!r}; {BY_HAND}"
        )
    if kind in FLOW:
        return Training("flow", RectifiedFlow(label_scale=config.get("num_train_timesteps", 1000)))
    prediction = config.get("prediction_type") or (
        "sample" if config.get("predict_epsilon") is False else "epsilon"
    )
    allowed = ("epsilon", "v_prediction") if kind in EDM else tuple(PREDICTIONS)
    if prediction not in allowed:
        raise ValueError(
            f"{source}: a {kind} has prediction_type {prediction!r}; known are {', '.join(allowed)}"
        )
    if kind in DISTILLED:
        warnings.warn(
            f"{source} names a {kind}: a network distilled for few steps returns one image, "
            "not the mean that a prior needs; use the network that it was distilled from",
            stacklevel=4,
        )
    if kind in EDM:
        if integer:
            raise ValueError(
                f"{source}: a {kind} tells ln(sigma) / 4 to a network "
                "that has an embedding of whole timesteps"
            )
        constant, low, high = (float(config.get(key, usual)) for key, usual in EDM_DEFAULTS.items())
        return Training("edm", None, constant, low, high, negative=prediction == "v_prediction")
    return Training(PREDICTIONS[prediction], _betas(config, kind, source, integer))


def _betas(config: dict[str, Any], kind: str, source: object, integer: bool) -> DiscreteVP:
    steps, usual = config.get("num_train_timesteps", 1000), BETAS[kind]
    first, last, name = (
        config.get(key, value)
        for key, value in zip(("beta_start", "beta_end", "beta_schedule"), usual, strict=True)
    )
    if config.get("trained_betas") is not None:
        schedule = DiscreteVP.from_betas(
            config["trained_betas"], integer=integer, name="trained_betas"
        )
    elif name == "linear":
        schedule = DiscreteVP.linear(steps, first, last, integer=integer)
    elif name == "scaled_linear":
        schedule = DiscreteVP.scaled_linear(steps, first, last, integer=integer)
    elif name == "squaredcos_cap_v2":
        schedule = DiscreteVP.cosine(steps, integer=integer)
    elif name == "sigmoid":
        schedule = DiscreteVP.from_betas(
            first + (last - first) / (1 + np.exp(-np.linspace(-6, 6, steps))),
            integer=integer,
            name="sigmoid",
        )
    else:
        raise ValueError(
            f"{source}: a {kind} has beta_schedule {name!r}; "
            "known are linear, scaled_linear, squaredcos_cap_v2, sigmoid and trained_betas"
        )
    shift = config.get("snr_shift_scale", SHIFTS.get(kind, 1.0)) or 1.0
    if shift != 1:
        abar = np.asarray(schedule.alphas_cumprod)
        schedule = DiscreteVP(
            tuple((abar / (shift + (1 - shift) * abar)).tolist()),
            integer,
            f"{schedule.name}, SNR over {shift:g}",
        )
    return schedule.zero_terminal() if config.get("rescale_betas_zero_snr") else schedule
