"""Visibilities in uvfits, and the sky that they are Fourier components of."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pytest
import torch
from reference import F64, draw

from posteriori import problem_file
from posteriori.measurements import read_measured
from posteriori.operators import ApertureSynthesis

HERTZ, CHANNEL, WINDOW = 2.3e11, 1e9, 4e9
SKY = math.radians(1 / 3600 / 1e6)


def written(
    place, hands, codes=(-1, -1), windows=1, channels=1, seconds=None, code=258.0, day=0.0, **head
):
    """hands: (n, windows, channels, hands, 3) of real part, imaginary part and weight. codes: the
    first polarisation and the step to the next. code, day: (n,), of the stations and of the time;
    the date is written in two parts, as files of the Event Horizon Telescope have it."""
    fits = pytest.importorskip("astropy.io.fits")
    n = len(hands)
    u, v = np.linspace(1e-3, 9e-3, n), np.linspace(-5e-3, 7e-3, n)
    u, v = (u, v) if seconds is None else seconds
    group = fits.GroupData(
        hands.reshape(n, 1, 1, windows, channels, -1, 3).astype(np.float32),
        parnames=["UU---SIN", "VV---SIN", "BASELINE", "DATE", "DATE"],
        pardata=[u, v, np.full(n, code), np.full(n, 2457849.5), np.full(n, day)],
        bitpix=-32,
    )
    unit = fits.GroupsHDU(group)
    told = {"COMPLEX": (1, 1, 1), "STOKES": (codes[0], codes[1], 1), "FREQ": (HERTZ, CHANNEL, 1)}
    for k, kind in enumerate(("COMPLEX", "STOKES", "FREQ", "IF", "RA", "DEC"), 2):
        first, step, at = told.get(kind, (1, 1, 1))
        unit.header.update(
            {f"CTYPE{k}": kind, f"CRVAL{k}": first, f"CDELT{k}": step, f"CRPIX{k}": at}
        )
    unit.header["BUNIT"] = "JY"
    unit.header.update(head)
    offsets = fits.Column("IF FREQ", f"{windows}D", array=[WINDOW * np.arange(windows)])
    table = fits.BinTableHDU.from_columns([offsets], name="AIPS FQ")
    fits.HDUList([unit, table]).writeto(place)
    return np.float32(u).astype(float), np.float32(v).astype(float)


def test_visibilities_are_of_total_intensity_with_the_noise_that_their_weights_say(tmp_path):
    """(RR + LL) / 2 of independent hands, one hand where the other is flagged, none where both
    are."""
    hands = np.zeros((4, 1, 1, 4, 3))
    hands[:, 0, 0, 0] = [[1, 2, 4.0], [1, 2, 4.0], [1, 2, 0.0], [1, 2, -4.0]]
    hands[:, 0, 0, 1] = [[3, 6, 4.0], [9, 9, np.inf], [3, 6, 1.0], [3, 6, 0.0]]
    hands[:, 0, 0, 2:] = 77.0  # crossed hands
    u, v = written(tmp_path / "a.uvfits", hands)
    m = read_measured(tmp_path / "a.uvfits")
    assert (m.axes, m.unit) == ("V", "Jy")
    assert m.data.tolist() == [2 + 4j, 1 + 2j, 3 + 6j]
    # Variances (1/4 + 1/4) / 4, 1/4 and 1 of each real part
    assert m.arrays["sigma"].tolist() == pytest.approx([8**-0.5, 0.5, 1.0])
    np.testing.assert_allclose(m.arrays["u"].numpy(), u[:3] * HERTZ, rtol=1e-6)
    np.testing.assert_allclose(m.arrays["v"].numpy(), v[:3] * HERTZ, rtol=1e-6)
    assert "1 flagged visibilities were left out" in m.notes[1]
    assert "2 have one hand" in m.notes[2]


def test_every_window_and_channel_has_its_own_wavelength(tmp_path):
    hands = np.ones((2, 2, 3, 1, 3))
    u, _ = written(tmp_path / "a.uvfits", hands, (1, 1), windows=2, channels=3)
    m = read_measured(tmp_path / "a.uvfits")
    hertz = HERTZ + WINDOW * np.arange(2)[:, None] + CHANNEL * np.arange(3)
    np.testing.assert_allclose(
        m.arrays["u"].numpy(), (u[:, None, None] * hertz).reshape(-1), rtol=1e-6
    )
    assert m.arrays["sigma"].unique().tolist() == [1.0]  # intensity itself, not a mean of two


def test_stations_and_moments_are_read_from_codes_and_dates(tmp_path):
    """256 i + j, or 2048 i + j + 65536; times a second apart are one, channels are not."""
    hands = np.ones((4, 1, 2, 1, 3))
    hands[1, 0, 0, 0, 2] = 0  # flagged
    codes = np.array([258.0, 259.0, 2048 * 3 + 300 + 65536, 258.0])
    days = np.array([0.25, 0.25 + 0.4 / 86400, 0.25 + 20 / 86400, 0.25 + 10 / 86400])
    written(tmp_path / "a.uvfits", hands, (1, 1), channels=2, code=codes, day=days)
    m = read_measured(tmp_path / "a.uvfits").arrays
    pairs = [[1, 2], [1, 3], [3, 300], [1, 2]]
    flat = [pair for pair in pairs for _ in range(2)]
    del flat[2]
    assert m["stations"].tolist() == flat
    # Two channels of each time, in the order of time
    assert m["moment"].tolist() == [0, 1, 1, 4, 5, 2, 3]


def test_closures_of_a_file_have_no_gap_at_its_sky_whatever_its_stations_did(tmp_path):
    pairs = list(combinations(range(1, 6), 2))
    n = len(pairs)
    at = draw(6, 2, seed=3).numpy() * 0.01
    u, v = np.float32([at[i] - at[j] for i, j in pairs]).T
    told = [torch.from_numpy(w.astype(float)) * HERTZ for w in (u, v)]
    x = draw(1, 1, 8, 8, seed=4).abs() + 0.1
    V = ApertureSynthesis(*told, (1, 8, 8), 10.0, "triangle")(x)[0].numpy()
    gain = np.exp(draw(6, seed=5).numpy() * 0.3 + 2j * draw(6, seed=6).numpy())
    y = V * [gain[i] * gain[j].conj() for i, j in pairs]
    hands = np.stack([y.real, y.imag, np.full(n, 1e6)], -1).reshape(n, 1, 1, 1, 3)
    code = np.array([256.0 * i + j for i, j in pairs])
    written(tmp_path / "sky.uvfits", hands, (1, 1), seconds=(u, v), code=code)
    text = """
prior: {gaussian: {mean: 0.4, std: 0.3, shape: [1, 8, 8], range: [0, 1]}}
operator: {name: aperture-synthesis, size: 8, field_uas: 80%s}
noise: {law: complex-gaussian, range: [0, 1]}
measurement: {file: sky.uvfits}
method: DAPS
"""
    place, gaps = tmp_path / "problem.yaml", []
    for more in (", closures: true", ", closures: true, flux: [10, 1]", ""):
        place.write_text(text % more)
        task = problem_file.load(place).build()
        given = task.posterior.given
        gap = (given.A(x.float()) - given.y)[0].abs().square()
        gaps.append((gap.numel(), float(gap[:11].mean())))
        assert ("6 closure phases and 5 closure amplitudes" in " ".join(task.notes)) == bool(more)
    # 5 stations: 6 phases and 5 amplitudes; single precision of a ratio of some thousands
    assert [count for count, _ in gaps] == [11, 12, n]
    assert max(gaps[0][1], gaps[1][1]) < 0.01
    assert gaps[2][1] > 100
    place.write_text(text % ", flux: [10, 1]")
    with pytest.raises(ValueError, match="belongs to closures"):
        problem_file.load(place)


def test_files_without_intensity_or_visibilities_are_refused(tmp_path):
    written(tmp_path / "cross.uvfits", np.ones((2, 1, 1, 1, 3)), (-3, -1))
    with pytest.raises(ValueError, match=r"polarisations \[-3\], none of which"):
        read_measured(tmp_path / "cross.uvfits")
    written(tmp_path / "flagged.uvfits", np.zeros((2, 1, 1, 1, 3)), (1, 1))
    with pytest.raises(ValueError, match="every visibility is flagged"):
        read_measured(tmp_path / "flagged.uvfits")
    fits = pytest.importorskip("astropy.io.fits")
    fits.PrimaryHDU(np.zeros((3, 4))).writeto(tmp_path / "image.uvfits")
    with pytest.raises(ValueError, match="holds no visibilities"):
        read_measured(tmp_path / "image.uvfits")


def points(n=9, scale=2e9):
    return draw(n, seed=1) * scale, draw(n, seed=2) * scale


@pytest.mark.parametrize("shape", [(1, 6, 7), (1, 5, 4)])
def test_one_pixel_has_the_phase_of_its_place_to_the_east_and_north(shape):
    """The first row is the northernmost, the first column the easternmost, the origin between the
    pixels of even sides; the sign of the exponent is plus."""
    u, v = points()
    d = 20.0
    A = ApertureSynthesis(u, v, shape, d)
    x = torch.zeros(2, *shape, dtype=F64)
    x[0, 0, 1, 2], x[1, 0, -1, 0] = 1, 1
    for row, (i, j) in enumerate(((1, 2), (shape[1] - 1, 0))):
        north, east = ((shape[1] - 1) / 2 - i) * d * SKY, ((shape[2] - 1) / 2 - j) * d * SKY
        expected = torch.exp(2j * math.pi * (u * east + v * north))
        torch.testing.assert_close(A(x)[row], expected, rtol=1e-12, atol=1e-12)


def test_the_shape_of_a_pixel_dampens_fine_detail():
    """At 0.197 cycles per pixel the triangle of the field's library loses 12 %, along each axis."""
    d = 20.0
    u, v = torch.tensor([0.197, 0.0, 0.1], dtype=F64) / (d * SKY), torch.zeros(3, dtype=F64)
    v[2] = 0.2 / (d * SKY)
    x = torch.zeros(1, 1, 3, 3, dtype=F64)
    x[0, 0, 1, 1] = 1
    lost = ApertureSynthesis(u, v, (1, 3, 3), d, "triangle")(x)[0].real
    sinc = [math.sin(math.pi * c) / (math.pi * c) for c in (0.197, 0.1, 0.2)]
    assert lost.tolist() == pytest.approx([sinc[0] ** 2, 1.0, (sinc[1] * sinc[2]) ** 2])
    assert 1 - float(lost[0]) == pytest.approx(0.12, abs=0.005)
    square = ApertureSynthesis(u, v, (1, 3, 3), d, "square")(x)[0].real
    assert square.tolist() == pytest.approx([sinc[0], 1.0, sinc[1] * sinc[2]])


def test_on_a_grid_it_is_the_discrete_fourier_transform():
    n, d = 5, 20.0
    whole = torch.arange(n, dtype=F64) / (n * d * SKY)
    v, u = (grid.flatten() for grid in torch.meshgrid(whole, whole, indexing="ij"))
    x = draw(1, 1, n, n)
    # + i with rows and columns against north and east is the sign of fft2; the origin is the middle
    found = ApertureSynthesis(u, v, (1, n, n), d)(x)[0].view(n, n)
    expected = torch.fft.fft2(torch.fft.ifftshift(x[0, 0]))
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


def test_places_that_are_no_numbers_are_refused():
    u, v = points()
    with pytest.raises(ValueError, match="real u and v of one shape"):
        ApertureSynthesis(u, v[:-1], (1, 4, 4), 20.0)
    with pytest.raises(ValueError, match="finite u and v"):
        ApertureSynthesis(u * math.inf, v, (1, 4, 4), 20.0)
    with pytest.raises(ValueError, match="images of shape"):
        ApertureSynthesis(u, v, (2, 4, 4), 20.0)
