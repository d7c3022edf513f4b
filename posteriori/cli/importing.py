"""``posteriori import``: other people's networks as priors of this package. Heavy imports wait for
a file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from posteriori import places


def import_command(
    source: Path,
    /,
    *,
    out: Path | None = None,
    heads: int | None = None,
    head_channels: int | None = None,
    new_order: bool = False,
    schedule: Literal["linear", "cosine", "scaled-linear"] | None = None,
    label: int | None = None,
    range_: Annotated[tuple[float, float] | None, Parameter(name="--range")] = None,
    train_size: int | None = None,
    sigma_data: float | None = None,
    sigma_min: float | None = None,
    sigma_max: float | None = None,
    config: Path | None = None,
    half: bool = False,
    description: str = "",
    licence: str = "",
) -> None:
    """Say what somebody else's network is, and save it as a prior of this package. Nothing that the
    file names is run.

    Parameters
    ----------
    source:
        a file of weights (.pt, .pth, .ckpt, .pkl, .safetensors), or a folder of the diffusers
        library.
    out:
        folder for the prior, weights.safetensors and card.json; by default nothing is written.
    heads:
        heads of every attention, of an ADM network that is none of the published ones; by default
        those of the published one.
    head_channels:
        or channels of every head; by default those of the published one.
    new_order:
        it was trained with use_new_attention_order.
    schedule:
        the noise that it was trained with; by default what the file or the published network says.
    label:
        the class that the prior is of, for a network conditioned on classes; none by default.
    range_:
        lowest and highest value of the images that it was trained on; that of its family by
        default.
    train_size:
        side of those images in pixels; that of the published network by default.
    sigma_data:
        the constant of EDM's preconditioning, 0.5 by its authors; by default what the file says.
    sigma_min:
        the smallest noise level it is asked for, in its own range; the schedule's by default.
    sigma_max:
        the largest; the schedule's by default.
    config:
        the JSON file that a network of k-diffusion was trained with; by default what the file
        itself says.
    half:
        write the weights in half precision.
    description:
        a sentence for the card.
    licence:
        of the weights, for the card.
    """
    import_prior(
        source,
        out,
        half=half,
        description=description,
        licence=licence,
        heads=heads,
        head_channels=head_channels,
        new_order=new_order or None,
        schedule=schedule,
        label=label,
        range=range_,
        train_size=train_size,
        sigma_data=sigma_data,
        sigma_min=sigma_min,
        sigma_max=sigma_max,
        config=config,
    )


def import_prior(
    source: Path, out: Path | None, *, half: bool, description: str, licence: str, **stated: Any
) -> None:
    """Print what ``source`` was recognised as and what the doctor says of it as a prior, and save
    it in ``out`` when one is given.

    Raises as ``priors.load``, and ``ValueError`` for a folder that is in use by something else.
    """
    from posteriori import priors
    from posteriori.examination import prior_findings
    from posteriori.priors.foreign.found import Stated

    other = None if out is None else places.occupied(out)
    if other is not None:
        raise ValueError(f"{out} is {other}; give another folder for the prior")
    found = priors.recognise(source, Stated(**stated))
    for title, text in found.lines():
        print(f"{title:16}{text}")
    for line in prior_findings(found.prior):
        wanted = f"; expected {line.expected}" if line.expected else ""
        cause = f" ({line.remedy})" if line.verdict != "pass" else ""
        print(f"{line.name:16}{line.verdict}: {line.value}{wanted}{cause}")
    if out is None:
        print("nothing is written; `--out FOLDER` saves it as a prior")
        return
    priors.save_pretrained(
        found.prior,
        out,
        storage="float16" if half else "float32",
        description=description or f"{found.architecture}; from {source.name}",
        licence=licence,
    )
    print(f"{'saved':16}{out}; a problem file takes it by prior: {{path: {out}}}")
