"""Pipelines of the Stable Diffusion family, as the ``diffusers`` library saves them, from a folder
or from the hub's cache on this machine.

    folder/model_index.json                    which pipeline it is
    folder/unet/ or folder/transformer/        the denoiser of latents
    folder/vae/                                the autoencoder, its scale and shift
    folder/text_encoder*/, folder/tokenizer*/  what reads the prompt
    folder/scheduler/scheduler_config.json     what the denoiser predicts, and under which noise

    StableDiffusionPipeline      1.4, 1.5, 2, 2.1: a UNet of eps or v
    StableDiffusionXLPipeline    two text encoders, a pooled embedding, the size of the image
    StableDiffusion3Pipeline     a transformer of rectified flow, three text encoders
    FluxPipeline                 the same in patches of 2x2, with distilled guidance

The sampler that the scheduler's file names is not used. Nothing is downloaded, and nothing that a
file names is run.
"""

from __future__ import annotations

import json
import math
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from posteriori.extras import require_extra
from posteriori.priors.architectures.prompted import PipelineAutoencoder, PromptedNet
from posteriori.priors.autoencoders import Autoencoder
from posteriori.priors.latent import Latent
from posteriori.priors.network import Network
from posteriori.priors.schedule import RectifiedFlow
from posteriori.priors.schedulers import training

INDEX = "model_index.json"
_Weights = Literal["float32", "float16", "bfloat16"]


class _Parts(NamedTuple):
    """The folder and the class of a pipeline's denoiser, and whether its text encoders also give a
    pooled embedding."""

    folder: str
    network: str
    pooled: bool


PIPELINES: dict[str, _Parts] = {
    "StableDiffusionPipeline": _Parts("unet", "UNet2DConditionModel", False),
    "StableDiffusionXLPipeline": _Parts("unet", "UNet2DConditionModel", True),
    "StableDiffusion3Pipeline": _Parts("transformer", "SD3Transformer2DModel", True),
    "FluxPipeline": _Parts("transformer", "FluxTransformer2DModel", True),
}


class PipelineText:
    """The text encoders of a pipeline. They are loaded when a text is read, and dropped after: the
    largest of them is as large as the denoiser.

    Gives "embedding" (T, width) and, but for Stable Diffusion 1 and 2, "pooled" (P,), in float32,
    as the pipeline's own ``encode_prompt`` makes them. The empty text of an XL pipeline is 0 where
    its index says so (force_zeros_for_empty_prompt).
    """

    def __init__(
        self, folder: Path, kind: str, dtype: torch.dtype, device: torch.device | None
    ) -> None:
        self.folder, self.kind, self.dtype = folder, kind, dtype
        self.device = device or torch.device("cpu")
        self.zeros = kind == "StableDiffusionXLPipeline" and bool(
            _json(folder / INDEX).get("force_zeros_for_empty_prompt", True)
        )
        self._read: dict[str, dict[str, Tensor]] = {}

    def __call__(self, text: str) -> dict[str, Tensor]:
        """Raises ``FileNotFoundError`` where an encoder is missing from the folder."""
        if text not in self._read:
            self._read[text] = self._encode(text)
        return dict(self._read[text])

    @torch.no_grad()
    def _encode(self, text: str) -> dict[str, Tensor]:
        pipe = self._pipeline()
        if self.kind == "FluxPipeline":
            embedding, pooled, _ = pipe.encode_prompt(text, None, device=self.device)
        elif self.kind == "StableDiffusion3Pipeline":
            embedding, _, pooled, _ = pipe.encode_prompt(
                text, None, None, device=self.device, do_classifier_free_guidance=False
            )
        elif self.kind == "StableDiffusionXLPipeline":
            embedding, _, pooled, _ = pipe.encode_prompt(
                text, device=self.device, do_classifier_free_guidance=False
            )
        else:
            embedding, pooled = pipe.encode_prompt(text, self.device, 1, False)[0], None
        out = {"embedding": embedding} | ({} if pooled is None else {"pooled": pooled})
        share = 0.0 if self.zeros and not text else 1.0
        return {name: share * value[0].float().cpu() for name, value in out.items()}

    def _pipeline(self) -> Any:
        """The library's pipeline with its text encoders alone."""
        import diffusers

        index = _json(self.folder / INDEX)
        parts = {
            name: None
            for name, value in index.items()
            if isinstance(value, list) and not name.startswith(("text_encoder", "tokenizer"))
        }
        parts.pop("scheduler", None)  # of a few bytes, and asked for by the pipelines
        if "safety_checker" in parts:
            parts["requires_safety_checker"] = False  # type: ignore[assignment]
        missing = [
            name
            for name, value in index.items()
            if name.startswith(("text_encoder", "tokenizer"))
            and isinstance(value, list)
            and value[0] is not None
            and not (self.folder / name).is_dir()
        ]
        if missing:
            raise FileNotFoundError(
                f"{self.folder} has no {' and no '.join(missing)}, which its {INDEX} names: text "
                "cannot be read; give embeddings by prior.conditioned(embedding=...)"
            )
        pipe = getattr(diffusers, self.kind).from_pretrained(
            str(self.folder), local_files_only=True, **_how(self.dtype), **parts
        )
        return pipe.to(self.device, self.dtype)


def from_diffusers_pipeline(
    place: str | Path,
    device: str | torch.device | None = None,
    *,
    weights: _Weights = "float32",
    sigma_min: float | None = None,
    sigma_max: float | None = None,
    at_once: int | None = None,
    check: bool = False,
) -> Latent:
    """A pipeline as a prior of images in [-1, 1]: ``Latent`` over a ``Network`` that is told a
    text.

        prior = po.priors.from_diffusers_pipeline("folder", "cuda", weights="float16")
        told = prior.conditioned(text="a photograph of a fox", guidance=3.0)

    place: a folder that ``save_pretrained`` wrote, or the name owner/model of one in the hub's
        cache on this machine.
    device: where to put it; the CPU when None.
    weights: the precision of denoiser and text encoders. The autoencoder, in which half precision
        overflows, images and losses are in float32.
    sigma_min, sigma_max: ends of sampling grids; those of the scheduler's file when None.
    at_once: images decoded together, see ``Latent``.
    check: try the round trip of the autoencoder on decoded draws of the prior, as ``Latent`` does
        by default; scale and shift are those of vae/config.json.

    Without a text the prior is told the empty one. Leaves that ``at`` and ``conditioned`` take:
    ``embedding``, ``pooled``, and ``time_ids`` (XL) or ``distilled_guidance`` (Flux), see
    ``posteriori.priors.architectures.prompted``.
    Raises ``ImportError`` without diffusers or transformers, ``FileNotFoundError`` for a place that
    is not here or not whole, ``ValueError`` for a pipeline of another kind.
    """
    require_extra("pipelines", "a diffusers pipeline", "diffusers", "transformers")
    folder = pipeline_folder(place)
    kind = pipeline_kind(folder)
    if kind is None:
        name = _json(folder / INDEX).get("_class_name")
        raise ValueError(
            f"{folder} holds a {name}; pipelines that are priors: {', '.join(PIPELINES)}"
        )
    where = None if device is None else torch.device(device)
    dtype: torch.dtype = getattr(torch, weights)
    vae = _model(folder, "vae", "AutoencoderKL", torch.float32)
    factor = 2 ** (len(vae.config.block_out_channels) - 1)
    text = PipelineText(folder, kind, dtype, where)
    part = PIPELINES[kind]
    net = PromptedNet(_model(folder, part.folder, part.network, dtype), text(""), factor)
    prior = _denoiser(net, folder, vae.config.latent_channels, text, sigma_min, sigma_max)
    coder = Autoencoder(
        PipelineAutoencoder(vae),
        factor=factor,
        channels=vae.config.in_channels,
        latent_channels=vae.config.latent_channels,
    )
    scale, shift = _units(vae.config)
    return Latent(
        prior if where is None else prior.to(where),
        coder if where is None else coder.to(where),
        scale=scale,
        shift=shift,
        at_once=at_once,
        check=check,
    )


def pipeline_folder(place: str | Path) -> Path:
    """The folder of a pipeline: itself, or that of the hub's cache. Raises ``FileNotFoundError``
    in one sentence."""
    folder = Path(place)
    if folder.is_dir():
        if (folder / INDEX).is_file():
            return folder
        raise FileNotFoundError(
            f"no {INDEX} in {folder}: it is no pipeline of the diffusers library"
        )
    if not is_hub_name(place):
        raise FileNotFoundError(f"no folder {place}")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        held = Path(snapshot_download(str(place), local_files_only=True))
    except (LocalEntryNotFoundError, HfHubHTTPError, FileNotFoundError):
        held = None
    if held is None or not (held / INDEX).is_file():
        raise FileNotFoundError(
            f"{place} is neither a folder nor a pipeline in the hub's cache on this machine, and "
            f"nothing is downloaded: fetch it once with 'hf download {place}' (a gated model asks "
            "for 'hf auth login' and for its licence to be accepted first)"
        )
    return held


def is_hub_name(place: object) -> bool:
    """Whether a text could be owner/model of the hub, and no path."""
    text = str(place)
    return (
        isinstance(place, str)
        and text.count("/") == 1
        and not text.startswith((".", "/", "~"))
        and not text.endswith("/")
        and not Path(text).suffix[1:].isalpha()
    )


def pipeline_kind(folder: Path) -> str | None:
    """The class of the pipeline in a folder, of those that are priors; None for any other."""
    if not (folder / INDEX).is_file():
        return None
    name = _json(folder / INDEX).get("_class_name")
    return name if name in PIPELINES else None


def _denoiser(
    net: PromptedNet,
    folder: Path,
    channels: int,
    text: PipelineText,
    sigma_min: float | None,
    sigma_max: float | None,
) -> Network:
    """The network of scaled latents, of unit variance."""
    config, file = net.net.config, folder / "scheduler" / "scheduler_config.json"
    patched = net.kind == "FluxTransformer2DModel"
    takes = config.in_channels // 4 if patched else config.in_channels
    if takes != channels:
        raise ValueError(
            f"the {net.kind} in {folder} takes {takes} channels, latents have {channels}: a "
            "pipeline that is given a picture or a mask beside the latents is no prior"
        )
    scheduler = _json(file)
    made = training(scheduler, file, integer=False)
    schedule = made.schedule
    if isinstance(schedule, RectifiedFlow):
        schedule = RectifiedFlow(label_scale=schedule.label_scale, shift=flow_shift(scheduler))
    side = getattr(config, "sample_size", None)
    unet = net.kind == "UNet2DConditionModel"
    multiple = 2 ** (len(config.block_out_channels) - 1) if unet else 2
    return Network(
        net,
        shape=(channels, None, None),
        parametrization=made.parametrization,
        schedule=schedule,
        range=None,
        variance=1.0,
        sigma_min=made.sigma_min if sigma_min is None else sigma_min,
        sigma_max=made.sigma_max if sigma_max is None else sigma_max,
        multiple=multiple,
        train_size=(side, side) if isinstance(side, int) else None,
        conditions=net.conditions,
        text=text,
    )


def flow_shift(scheduler: dict[str, Any]) -> float:
    """The shift k of a flow's levels, t = k u / (1 + (k - 1) u): that of the file, or
    exp(max_shift) where it grows with the image, which is that of the largest."""
    if scheduler.get("use_dynamic_shifting"):
        return math.exp(float(scheduler.get("max_shift", 1.15)))
    return float(scheduler.get("shift", 1.0))


def _units(config: Any) -> tuple[float | Tensor, float | Tensor]:
    """Scale and shift of latents: u = (z - shift) scale."""
    scale, shift = float(config.scaling_factor), float(getattr(config, "shift_factor", None) or 0)
    mean, std = (getattr(config, name, None) for name in ("latents_mean", "latents_std"))
    if mean is None or std is None:
        return scale, shift
    each = [torch.tensor(values, dtype=torch.float32).view(-1, 1, 1) for values in (mean, std)]
    return scale / each[1], each[0]


def _model(folder: Path, part: str, kind: str, dtype: torch.dtype) -> Any:
    """A network of a pipeline, by the library. Raises ``FileNotFoundError`` where it is not there,
    ``ValueError`` for one of another class."""
    import diffusers

    inner = folder / part
    config = _json(inner / "config.json")
    if config.get("_class_name", kind) != kind:
        raise ValueError(f"{inner} holds a {config['_class_name']}; expected a {kind}")
    names = [file.name for file in inner.glob("*.safetensors*")] + [
        file.name for file in inner.glob("*.bin*")
    ]
    if not names:
        raise FileNotFoundError(
            f"no weights in {inner}: the pipeline was not copied or downloaded whole"
        )
    halves = all(".fp16." in name for name in names)
    model: Any = getattr(diffusers, kind).from_pretrained(
        str(inner), local_files_only=True, variant="fp16" if halves else None, **_how(dtype)
    )
    # Some classes of some versions of the library keep the precision of the file.
    return model if model.dtype == dtype else model.to(dtype)


def _how(dtype: torch.dtype) -> dict[str, Any]:
    """The precision under the name of the library's version, and weights that are put into place
    one by one where accelerate is there to do it."""
    import diffusers

    version = tuple(int(part) for part in diffusers.__version__.split(".")[:2])
    return {
        "dtype" if version >= (0, 42) else "torch_dtype": dtype,
        "low_cpu_mem_usage": find_spec("accelerate") is not None,
    }


def _json(file: Path) -> dict[str, Any]:
    if not file.is_file():
        raise FileNotFoundError(
            f"no {file.name} in {file.parent}: the pipeline was not copied or downloaded whole"
        )
    try:
        return json.loads(file.read_text())
    except ValueError as error:
        raise ValueError(f"{file} is not JSON: {error}") from None
