"""Photon counts and sinograms from a problem file: units, photons per ray, and filtered
back-projection."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile
import torch
import yaml
from reference import F64

import posteriori as po
from posteriori import problem_file
from posteriori.noise import Counts, Poisson
from posteriori.operators.back_projection import _weights
from posteriori.rng import Streams

WATER = 0.02


def bump(H, W):
    Y, X = torch.meshgrid(
        torch.linspace(-1, 1, H, dtype=F64), torch.linspace(-1, 1, W, dtype=F64), indexing="ij"
    )
    return torch.exp(-6 * ((X - 0.2) ** 2 + (Y + 0.3) ** 2))[None, None]


@pytest.fixture
def build(tmp_path):
    def made(operator, noise, file="y.npy", **changes):
        prior = {"gaussian": {"mean": 0.5, "std": 0.3, "shape": [1, 12, 12], "range": [0, 1]}}
        record = {
            "prior": prior,
            "operator": operator,
            "noise": noise,
            "measurement": {"file": file},
        } | changes
        (tmp_path / "problem.yaml").write_text(
            yaml.safe_dump(record | {"method": "DPS", "n": 1, "steps": 3} | changes)
        )
        return problem_file.load(tmp_path / "problem.yaml").build()

    return made


TRANSMISSION = {"name": "transmission", "angles": 9, "pixel_mm": 2.0, "detectors": 18}
HU = {"unit": "HU", "mu_water": WATER}
POISSON = {"law": "poisson", "range": [-1000, 600]}


def chest(tmp_path, photons=None):
    """Counts of a drawing in Hounsfield units behind ``photons`` per detector; the drawing."""
    x = -1000 + 1100 * bump(12, 12).float()
    rays = po.operators.Radon((1, 12, 12), [20.0 * k for k in range(9)], 2.0, 18)
    I0 = torch.linspace(500, 5000, 18) if photons is None else torch.as_tensor(photons)
    clean = I0 * torch.exp(-rays(WATER * (1 + x / 1000)))
    counts = torch.poisson(clean, generator=torch.Generator().manual_seed(0))[0, 0]
    np.save(tmp_path / "y.npy", counts.numpy().astype(np.uint16))
    np.save(tmp_path / "blank.npy", I0.numpy())
    return x, clean


@pytest.mark.parametrize(
    ("shape", "n", "detectors", "spacing"),
    [((64, 64), 180, None, None), ((65, 48), 90, 100, 0.8), ((1, 64, 64), 60, None, None)],
)
def test_filtered_back_projection_inverts_the_projector(shape, n, detectors, spacing):
    """Up to the width of a pixel and the angles, on a smooth image: in the units of the image, at
    its place, whatever the detector."""
    A = po.operators.Radon(shape, [180 * k / n for k in range(n)], 0.7, detectors, spacing)
    x = bump(*shape[-2:]).reshape(1, *shape)
    found = po.operators.back_projection(A, A(x))
    assert float((found - x).abs().max()) < 0.02
    assert abs(float((found * x).sum() / x.square().sum()) - 1) < 0.01
    rows = torch.cat([A(x), 2 * A(x)])
    torch.testing.assert_close(po.operators.back_projection(A, rows)[1:], 2 * found)


def test_angles_count_by_the_arc_that_they_stand_for():
    assert _weights([0.0, 90.0]) == pytest.approx([np.pi / 2] * 2)
    assert _weights([175.0, 5.0, 60.0]) == pytest.approx(np.deg2rad([62.5, 32.5, 85.0]))
    assert sum(_weights([0.0, 10.0, 10.0, 200.0, -80.0])) == pytest.approx(np.pi)
    uneven = [float(a) for a in range(0, 90, 1)] + [float(a) for a in range(90, 180, 3)]
    A, x = po.operators.Radon((48, 48), uneven, 1.0), bump(48, 48)[0]
    assert float((po.operators.back_projection(A, A(x)) - x).abs().max()) < 0.03


def test_photons_of_each_ray_multiply_what_passes():
    rays = po.operators.Radon((6, 6), [0, 45, 90], 1.0, 9)
    x, I0 = 0.1 * torch.rand(2, 6, 6), torch.linspace(10, 90, 9)
    share = po.operators.Transmission(rays)(x)
    torch.testing.assert_close(po.operators.Transmission(rays, I0)(x), I0 * share)
    torch.testing.assert_close(po.operators.Transmission(rays, 7.0)(x), 7 * share)
    for photons, message in (
        (torch.zeros(9), "photons must be finite"),
        (torch.ones(8), "do not fit"),
        (-1.0, "photons must be finite"),
    ):
        with pytest.raises(ValueError, match=message):
            po.operators.Transmission(rays, photons)


def test_counts_are_poisson_noise_of_whole_photons():
    clean = torch.rand(3, 4, 5, dtype=F64) * 20
    y, law, twin = Counts().sample(clean, Streams(0, range(3))), Counts(), Poisson(100.0)
    assert torch.equal(y, y.round())
    torch.testing.assert_close(law.log_prob(y, clean), twin.log_prob(y / 100, clean / 100))
    torch.testing.assert_close(law.score(y, clean), twin.score(y / 100, clean / 100) / 100)
    torch.testing.assert_close(law.variance(y), y.clamp(min=1))
    with pytest.raises(ValueError, match="have no peak"):
        Counts(5.0)


def test_counts_in_a_file_are_measured_in_hounsfield_units(build, tmp_path):
    """A x is the number of photons expected behind x, and the truth has a chi-square of 1: 162
    numbers, five standard errors."""
    x, clean = chest(tmp_path)
    task = build(TRANSMISSION | HU | {"photons": "blank.npy"}, POISSON)
    given = task.posterior.given
    assert isinstance(given.noise, Counts)
    torch.testing.assert_close(given.A(x), clean)
    assert torch.equal(given.y[0], torch.from_numpy(np.load(tmp_path / "y.npy")).float())
    assert abs(float(((given.y - clean[0]).square() / clean[0]).mean()) - 1) < 5 * (2 / 162) ** 0.5
    assert "500 to 5000 photons at a detector without an object" in task.notes
    samples = po.sample(task.posterior, task.method, **task.settings).samples
    assert samples.shape == (1, 1, 12, 12)
    assert float(samples.min()) > -3000


def test_counts_are_read_from_arrays_and_pictures(build, tmp_path):
    chest(tmp_path, 3000.0)
    stored = np.load(tmp_path / "y.npy")
    tifffile.imwrite(tmp_path / "y.tif", stored)
    tifffile.imwrite(tmp_path / "blank.tif", np.full((9, 18), 3000, dtype=np.uint16))
    np.save(tmp_path / "float.npy", stored.astype(np.float32))
    for name in ("y.npy", "y.tif", "float.npy"):
        for photons in (3000, "blank.npy", "blank.tif"):
            given = build(TRANSMISSION | HU | {"photons": photons}, POISSON, name).posterior.given
            np.testing.assert_array_equal(given.y[0].numpy(), stored)
            torch.testing.assert_close(given.A.A.photons.expand(9, 18), torch.full((9, 18), 3000.0))


def test_the_baseline_is_in_the_unit_of_the_image(build, tmp_path):
    """Of counts, of shares and of line integrals alike: at many photons, near the drawing."""
    rays = po.operators.Radon((1, 12, 12), [5.0 * k for k in range(36)], 2.0, 36, 1.0)
    x = -1000 + 1100 * bump(12, 12).float()
    mu = WATER * (1 + x / 1000)
    np.save(tmp_path / "counts.npy", (1e6 * torch.exp(-rays(mu)))[0].round().numpy())
    np.save(tmp_path / "share.npy", torch.exp(-rays(mu))[0].numpy())
    np.save(tmp_path / "integrals.npy", rays(mu)[0].numpy())
    geometry = {"angles": 36, "pixel_mm": 2.0, "detector_mm": 1.0}
    gaussian = {"law": "gaussian", "sigma": 0.01, "range": [-1000, 600]}
    for operator, noise, name in (
        ({"name": "transmission", "photons": 1e6}, POISSON, "counts.npy"),
        ({"name": "transmission"}, POISSON | {"peak": 1e6}, "share.npy"),
        ({"name": "radon"}, gaussian, "integrals.npy"),
    ):
        task = build(geometry | HU | operator, noise, name)
        assert task.baseline.name == "Filtered back-projection"
        inner = (task.baseline.image - x[0])[..., 2:-2, 2:-2]
        assert float(inner.square().mean().sqrt()) < 60
    plain = {"name": "radon"} | geometry
    task = build(plain, {"law": "gaussian", "sigma": 0.01, "range": [0, 0.03]}, "integrals.npy")
    assert (
        float((task.baseline.image - mu[0])[..., 2:-2, 2:-2].square().mean().sqrt())
        < 60 * WATER / 1000
    )


def test_line_integrals_in_hounsfield_units_are_linear(build, tmp_path):
    """y less the integrals of water is a multiple of the projector on Hounsfield units: linear
    methods take it."""
    x, _ = chest(tmp_path)
    rays = po.operators.Radon((1, 12, 12), [20.0 * k for k in range(9)], 2.0, 18)
    np.save(tmp_path / "y.npy", rays(WATER * (1 + x / 1000))[0].numpy())
    noise = {"law": "gaussian", "sigma": 0.01, "range": [-1000, 600]}
    given = build({"name": "radon", "angles": 9, "pixel_mm": 2.0} | HU, noise).posterior.given
    assert isinstance(given.A, po.operators.LinearOperator)
    torch.testing.assert_close(given.A(x)[0], given.y, rtol=1e-4, atol=1e-4)


def test_counts_taken_for_line_integrals_are_the_poisson_law_to_second_order(build, tmp_path):
    """-2 log p of the two laws differ by a constant near the truth, up to the next order in
    1 / sqrt(counts); linear methods take it."""
    x, _ = chest(tmp_path, 5e4)
    operator = TRANSMISSION | HU | {"photons": 5e4}
    ours = build(operator | {"linear": True}, POISSON).posterior.given
    exact = build(operator, POISSON).posterior.given
    assert isinstance(ours.A, po.operators.LinearOperator)
    assert ours.noise.std == 1
    near = torch.cat(
        [
            x + 20 * k * torch.randn(x.shape, generator=torch.Generator().manual_seed(k))
            for k in range(4)
        ]
    ).double()
    a, b = (like.log_prob(near) for like in (exact, ours))
    assert float((a - a[0]).abs().max()) > 20
    torch.testing.assert_close(b - b[0], a - a[0], rtol=0.02, atol=0.2)
    assert abs(float(ours.chi2(x)[0]) - 1) < 5 * (2 / 162) ** 0.5
    task = build(operator | {"linear": True}, POISSON, method="DDS")
    assert po.sample(task.posterior, task.method, **task.settings).samples.shape == (1, 1, 12, 12)
    torch.testing.assert_close(
        task.baseline.image, build(operator, POISSON).baseline.image, rtol=1e-3, atol=1.0
    )


def test_the_size_of_detector_and_image_come_from_the_sinogram(build, tmp_path):
    np.save(tmp_path / "y.npy", np.ones((9, 25), dtype=np.float32))
    noise = {"law": "gaussian", "sigma": 0.01, "range": [0, 0.03]}
    radon = {"name": "radon", "angles": 9, "pixel_mm": 2.0}
    assert build(radon, noise).posterior.given.A.detectors == 25
    task = build(radon | {"detector_mm": 4.0}, noise, prior={"grey": "photos"})
    assert task.posterior.shape == (1, 50, 50)
    np.save(tmp_path / "y.npy", np.ones((25, 9), dtype=np.float32))
    with pytest.raises(
        ValueError, match=r"its axes are \(detectors, angles\): store it transposed"
    ):
        build(radon, noise)
    np.save(tmp_path / "y.npy", np.ones((8, 25), dtype=np.float32))
    with pytest.raises(ValueError, match="there are 9 angles; a sinogram here is"):
        build(radon, noise)


@pytest.mark.parametrize(
    ("operator", "noise", "message"),
    [
        (
            TRANSMISSION | {"photons": 100},
            POISSON,
            "is no attenuation in 1 / mm; Hounsfield units need unit: HU and mu_water",
        ),
        (
            TRANSMISSION | HU | {"photons": 100},
            POISSON | {"range": [0, 0.02]},
            "is in 1 / mm, the unit is HU",
        ),
        (TRANSMISSION | {"unit": "HU"}, POISSON, "needs mu_water, the attenuation of water"),
        (TRANSMISSION | {"mu_water": 0.02}, POISSON, "needs mu_water, the attenuation of water"),
        (TRANSMISSION | HU | {"photons": 100}, POISSON | {"peak": 5e3}, "and no peak"),
        (TRANSMISSION | HU, POISSON, "state the number of photons"),
        (
            TRANSMISSION | HU | {"photons": 100},
            {"law": "gaussian", "sigma": 1, "range": [-1000, 600]},
            "counts themselves are measured",
        ),
        (
            {"name": "compose", "parts": ["identity", TRANSMISSION | HU]},
            POISSON | {"peak": 5e3},
            "stands alone, not within compose",
        ),
        (
            TRANSMISSION | HU | {"linear": True},
            POISSON | {"peak": 100},
            "linear takes the counts for line integrals, so that it needs",
        ),
        ("identity", POISSON | {"peak": 100.0}, "photons are counted from black = 0"),
    ],
)
def test_units_that_do_not_fit_are_said(build, tmp_path, operator, noise, message):
    chest(tmp_path)
    with pytest.raises(ValueError, match=message):
        build(operator, noise)


def test_counts_below_zero_are_line_integrals(build, tmp_path):
    np.save(tmp_path / "y.npy", -np.ones((9, 18), dtype=np.float32))
    with pytest.raises(
        ValueError, match="photons are no fewer than 0. Line integrals: operator radon"
    ):
        build(TRANSMISSION | HU | {"photons": 100}, POISSON)
