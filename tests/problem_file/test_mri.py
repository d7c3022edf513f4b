"""Measured k-space: files of BART, what a k-space says of itself, and the way from a problem file
to samples in its unit."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import yaml
from reference import F64

import posteriori as po
from posteriori import problem_file
from posteriori.measurements import kspace, read_array
from posteriori.measurements.bart import coils_first, read_cfl


def write_cfl(path, array, sides=None):
    """As BART writes it: sixteen sides in the header, the first one fastest."""
    sides = [*(sides or array.shape), *[1] * 16][:16]
    path.with_suffix(".hdr").write_text(
        "# Dimensions\n" + " ".join(map(str, sides)) + "\n# Command\nphantom 3\n"
    )
    array.astype("<c8").ravel(order="F").tofile(path.with_suffix(".cfl"))


def maps(coils=4, side=24):
    """Smooth maps with sum |S|^2 = 1."""
    rows, columns = np.meshgrid(*2 * [np.linspace(-1, 1, side)], indexing="ij")
    around = 2 * np.pi * np.arange(coils)[:, None, None] / coils
    S = np.exp(
        -((rows - np.sin(around)) ** 2 + (columns - np.cos(around)) ** 2) / 3
        + 1j * (around + 0.4 * columns)
    )
    return (S / np.sqrt((np.abs(S) ** 2).sum(0))).astype(np.complex64)


def fourier(x):
    axes = (-2, -1)
    return np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(x, axes), norm="ortho"), axes)


def scan(folder, scale=1.0, sigma=0.02, phase=True):
    """A k-space of a bump behind a smooth phase, three rows in four; the magnitude."""
    rng, S = np.random.default_rng(0), maps()
    rows, columns = np.meshgrid(*2 * [np.linspace(-1, 1, 24)], indexing="ij")
    x = np.exp(-3 * (rows**2 + (columns - 0.2) ** 2))
    k = fourier(S * x * np.exp(1j * (0.5 + 0.7 * rows) * phase))
    k = k + sigma * (rng.standard_normal(k.shape) + 1j * rng.standard_normal(k.shape))
    k[:, [0, 2, 4, 19, 21, 23]] = 0
    np.save(folder / "k.npy", (scale * k).astype(np.complex64))
    np.save(folder / "maps.npy", S)
    return k, x


@pytest.fixture
def build(tmp_path):
    def made(operator="mri", channels=1, file="k.npy", **changes):
        prior = {
            "gaussian": {
                "mean": 0.3 if channels == 1 else 0.0,
                "std": 0.3,
                "shape": [channels, 24, 24],
                "range": [0, 1],
            }
        }
        if channels == 2:
            prior["gaussian"]["range"] = [-1, 1]
        record = {
            "prior": prior,
            "operator": operator,
            "noise": {"law": "complex-gaussian"},
            "measurement": {"file": file},
        } | changes
        (tmp_path / "problem.yaml").write_text(
            yaml.safe_dump(record | {"method": "DDS", "n": 2, "steps": 4})
        )
        return problem_file.load(tmp_path / "problem.yaml").build()

    return made


def test_a_cfl_is_read_in_its_own_order(tmp_path):
    """Element (i, j, k) of column-major data lies at i + n_0 (j + n_1 k)."""
    array = (np.arange(2 * 3 * 4) + 1j).reshape(2, 3, 4)
    write_cfl(tmp_path / "a.cfl", array)
    flat = np.fromfile(tmp_path / "a.cfl", dtype="<c8")
    read = read_array(tmp_path / "a.cfl")
    assert (read.shape, read.dtype) == ((2, 3, 4), torch.complex64)
    assert complex(read[1, 2, 3]) == flat[1 + 2 * (2 + 3 * 3)] == array[1, 2, 3]


def test_the_coils_of_a_cfl_are_its_fourth_side(tmp_path):
    k = np.random.default_rng(0).standard_normal((5, 6, 7)) + 0j
    for sides, order in (
        ((1, 6, 7, 5), (1, 2, 0)),
        ((6, 7, 1, 5), (1, 2, 0)),
        ((6, 1, 7, 5), (1, 2, 0)),
    ):
        write_cfl(tmp_path / "k.cfl", k.transpose(order), sides)
        torch.testing.assert_close(
            coils_first(read_cfl(tmp_path / "k.cfl"), "k.cfl"),
            torch.from_numpy(k).to(torch.complex64),
        )
    write_cfl(tmp_path / "one.cfl", k[0])
    assert coils_first(read_cfl(tmp_path / "one.cfl"), "one.cfl").shape == (1, 6, 7)
    for sides in ((5, 6, 7), (1, 6, 7, 1, 5), (42, 1, 1, 5)):
        write_cfl(tmp_path / "bad.cfl", k, sides)
        with pytest.raises(ValueError, match="two image sides among the first three"):
            coils_first(read_cfl(tmp_path / "bad.cfl"), "bad.cfl")


def test_a_cfl_that_is_none_is_named(tmp_path):
    write_cfl(tmp_path / "a.cfl", np.ones((2, 3)))
    (tmp_path / "a.cfl").write_bytes(bytes(40))
    with pytest.raises(
        ValueError, match="has 40 bytes, an array of the sides 2 x 3 x .* in a.hdr has 48"
    ):
        read_cfl(tmp_path / "a.cfl")
    (tmp_path / "a.hdr").write_text("2 3")
    with pytest.raises(ValueError, match="is no header of BART"):
        read_cfl(tmp_path / "a.cfl")
    (tmp_path / "a.hdr").unlink()
    with pytest.raises(FileNotFoundError, match=r"a\.hdr"):
        read_cfl(tmp_path / "a.cfl")


def test_axes_of_a_k_space():
    k = torch.randn(3, 8, 9, dtype=torch.complex64)
    assert torch.equal(kspace.arranged(k, "k.npy"), k)
    assert torch.equal(kspace.arranged(k.movedim(0, -1), "k.npy", "last"), k)
    assert torch.equal(kspace.arranged(k[None, None], "k.npy"), k)
    assert kspace.arranged(k[0], "k.npy").shape == (1, 8, 9)
    for wrong, axis, message in (
        (k.movedim(0, -1), "first", "Is the coil axis the last one"),
        (k, "last", "Is the coil axis the first one"),
        (k.real, "first", "k-space is complex"),
        (0 * k, "first", "0 everywhere"),
        (k / 0, "first", "not finite"),
        (k[:, None, None].expand(3, 2, 2, 8, 9), "first", "of one slice"),
    ):
        with pytest.raises(ValueError, match=message):
            kspace.arranged(wrong, "k.npy", axis)


@pytest.mark.parametrize("centred", [True, False])
def test_the_fully_sampled_centre(centred):
    def seen(*boxes):
        mask = torch.zeros(20, 30, dtype=torch.bool)
        for rows, columns in boxes:
            mask[10 - rows // 2 : 10 + rows // 2, 15 - columns // 2 : 15 + columns // 2] = True
        return mask if centred else torch.fft.ifftshift(mask)

    assert kspace.centre_block(seen((20, 30)), centred) == (20, 24)
    assert kspace.centre_block(seen((8, 8)), centred) == (8, 8)
    assert kspace.centre_block(seen((6, 30)), centred) == (6, 24)
    assert kspace.centre_block(seen((12, 4), (6, 8)), centred) == (6, 8)
    assert kspace.centre_block(seen((20, 30)), centred, 10) == (10, 10)
    assert kspace.centre_block(torch.zeros(20, 30, dtype=torch.bool), centred) == (0, 0)


def test_the_block_of_a_phase_is_as_long_as_the_mask_allows_up_to_an_eighth_of_the_points():
    mask = torch.zeros(100, 160, dtype=torch.bool)
    mask[:, 72:88] = True
    assert kspace.centre_block(mask) == (24, 16)
    assert kspace.phase_block(mask) == (100, 16)  # a tenth
    assert kspace.phase_block(mask.T) == (16, 100)
    rows, columns = kspace.phase_block(torch.ones(100, 160, dtype=torch.bool))
    assert 0.12 * 16000 < rows * columns <= 2000
    assert abs(rows - columns) <= 2
    assert kspace.phase_block(torch.ones(20, 30, dtype=torch.bool)) == (20, 24)


def test_a_phase_that_turns_along_fully_sampled_rows_is_read_from_all_of_them():
    """Along rows the phase has a period of 8 points, which the 24 rows of the middle do not reach
    at 100 rows and all 100 do."""
    H, W = 100, 160
    rows, columns = (torch.arange(n, dtype=F64) for n in (H, W))
    image = (1 + 0.3 * torch.cos(2 * torch.pi * (columns - W // 2) / W)) * torch.polar(
        torch.ones(H, 1, dtype=F64), 0.5 * torch.cos(2 * torch.pi * (rows - H // 2)[:, None] / 8)
    )
    k = torch.fft.fftshift(torch.fft.fft2(torch.fft.ifftshift(image), norm="ortho"))[None]
    mask = torch.zeros(H, W, dtype=torch.bool)
    mask[:, 72:88] = True
    maps = torch.ones(1, H, W, dtype=torch.complex128)
    found = kspace.phase_factor(k * mask, mask, maps)
    torch.testing.assert_close(found, image / image.abs())
    shifted = [torch.fft.ifftshift(t, (-2, -1)) for t in (k * mask, mask, maps)]
    again = kspace.phase_factor(*shifted, centred=False)
    torch.testing.assert_close(torch.fft.fftshift(again), found)


@pytest.mark.parametrize("centred", [True, False])
def test_the_low_resolution_images_are_those_of_a_smooth_object(centred):
    """What lies within the central block survives, times the taper: at the zero frequency sin^2(pi
    (n/2 + 1) / (n + 2)) = 1."""
    k = torch.zeros(2, 12, 10, dtype=torch.complex128)
    at = (6, 5) if centred else (0, 0)
    k[0][at], k[1][at] = 3.0, 4j
    low = kspace.low_resolution(k, (6, 4), centred)
    torch.testing.assert_close(
        low,
        (torch.tensor([3.0, 4j], dtype=torch.complex128) / 120**0.5)
        .view(2, 1, 1)
        .expand(2, 12, 10),
    )
    S = kspace.sensitivities(low)
    torch.testing.assert_close(S.abs().square().sum(0), torch.ones(12, 10, dtype=F64))
    torch.testing.assert_close(
        (S.conj() * low).sum(0), torch.full((12, 10), 5 / 120**0.5, dtype=torch.complex128)
    )


def test_the_noise_of_each_coil_is_that_of_the_border():
    """The median of n Rayleigh numbers has the standard error sigma / (2 f(m) sqrt(n)), 1.06
    sigma / sqrt(2 ln 2) / sqrt(n) or less."""
    levels = torch.tensor([0.5, 2.0, 3.0])
    k = levels.view(3, 1, 1) * torch.randn(
        3, 100, 120, 2, generator=torch.Generator().manual_seed(0)
    ).mul(1.0).select(-1, 0)
    other = levels.view(3, 1, 1) * torch.randn(
        3, 100, 120, generator=torch.Generator().manual_seed(1)
    )
    k = torch.complex(k, other)
    k[:, 30:70, 40:80] += 1000
    found = kspace.kspace_noise_level(k, torch.ones(100, 120, dtype=torch.bool))
    assert float((found / levels - 1).abs().max()) < 5 / 600**0.5
    with pytest.raises(ValueError, match="too few to tell the noise from the signal"):
        kspace.kspace_noise_level(k[:, :10, :10], torch.ones(10, 10, dtype=torch.bool))


def test_the_convention_of_the_transform_is_checked():
    k = torch.ones(2, 12, 10, dtype=torch.complex64)
    k[0, 6, 4] = 50
    kspace.check_centre(k, True)
    with pytest.raises(ValueError, match=r"at \(6, 4\) of 12 x 10.*leave centred: false out"):
        kspace.check_centre(k, False)
    with pytest.raises(ValueError, match="at the corner: state centred: false"):
        kspace.check_centre(k.roll((6, 5), (-2, -1)), True)


def test_a_problem_file_measures_what_was_measured(build, tmp_path):
    """With the true maps A x is the k-space of x, and the truth meets y to the noise: chi-square of
    2 x 4 x 432 numbers, five errors."""
    k, x = scan(tmp_path, phase=False)
    task = build({"name": "mri", "maps": "maps.npy", "phase": "none"})
    given = task.posterior.given
    assert given.y.shape == (4, 18 * 24)
    torch.testing.assert_close(
        given.y, torch.from_numpy(k[:, k.any((0, 2))]).to(torch.complex64).flatten(1)
    )
    clean = given.A(torch.from_numpy(x).float()[None, None])[0]
    assert (
        abs(float((given.y - clean).abs().square().mean()) / (2 * 0.02**2) - 1)
        < 5 * (2 / 3456) ** 0.5
    )
    assert any(
        "4 coils, 24 x 24; 75.0 % of its points are sampled, those that are not 0" in note
        for note in task.notes
    )
    assert any(note.startswith("noise: sigma_per_channel is 0.0") for note in task.notes)
    # Medians of 64 moduli of each of four coils: five standard errors, and a little signal.
    assert abs(given.noise.std / 0.02 - 1) < 5 / 256**0.5


def test_maps_and_phase_from_the_calibration_leave_a_real_image(build, tmp_path):
    """The object is smooth: behind maps of its own centre it is its magnitude, within a few per
    cent."""
    _, x = scan(tmp_path, sigma=1e-3)
    for operator in ("mri", {"name": "mri", "maps": "maps.npy"}):
        given = build(operator).posterior.given
        clean = given.A(torch.from_numpy(x).float()[None, None])[0]
        assert float((given.y - clean).norm() / given.y.norm()) < 0.1
    # With the maps alone the phase stays, and no real image explains y.
    given = build({"name": "mri", "maps": "maps.npy", "phase": "none"}).posterior.given
    value = float(
        (given.y - given.A(torch.from_numpy(x).float()[None, None])[0]).norm() / given.y.norm()
    )
    assert value > 0.4


def test_maps_of_espirit_are_those_that_measured(build, tmp_path):
    """Within the object the maps of a k-space without noise are the true ones, up to the phase of
    their first coil; the phase that is left to the object is then that of the image times it."""
    pytest.importorskip("sigpy")
    k, x = scan(tmp_path, sigma=1e-4)
    given = build({"name": "mri", "maps": "espirit"}).posterior.given
    found = given.A.A.sensitivities
    assert torch.allclose(found.abs().square().sum(0), torch.ones(24, 24), atol=1e-4)
    S = torch.from_numpy(maps())
    S = S * torch.polar(torch.ones(24, 24), -S[0].angle())
    inside = torch.from_numpy(x) > 0.3
    assert float((found - S)[:, inside].norm() / S[:, inside].norm()) < 0.05
    clean = given.A(torch.from_numpy(x).float()[None, None])[0]
    assert float((given.y - clean).norm() / given.y.norm()) < 0.1
    np.save(tmp_path / "corner.npy", np.fft.fftshift(k, (-2, -1)).astype(np.complex64))
    corner = build({"name": "mri", "maps": "espirit", "centred": False}, file="corner.npy")
    turned = torch.fft.fftshift(corner.posterior.given.A.A.sensitivities, (-2, -1))
    torch.testing.assert_close(turned, found, rtol=0, atol=1e-4)


def test_maps_of_espirit_name_what_they_need(build, tmp_path, monkeypatch):
    scan(tmp_path)
    monkeypatch.setattr("posteriori.extras.find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"maps: espirit needs sigpy.*posteriori\[mri\]"):
        build({"name": "mri", "maps": "espirit"})


def test_samples_are_in_the_unit_of_the_k_space(build, tmp_path):
    """The same k-space in another unit gives the same samples in that unit."""
    found = {}
    for scale in (1.0, 1e-6, 1e4):
        scan(tmp_path, scale)
        task = build()
        found[scale] = po.sample(task.posterior, task.method, **task.settings).samples / scale
    for scale in (1e-6, 1e4):
        torch.testing.assert_close(found[scale], found[1.0], rtol=1e-3, atol=1e-3)


def test_a_prior_of_two_channels_models_the_complex_image(build, tmp_path):
    k, _ = scan(tmp_path)
    task = build({"name": "mri", "maps": "maps.npy"}, channels=2)
    assert task.posterior.prior.complex
    low, high = task.posterior.given.range
    assert low == -high
    samples = po.sample(task.posterior, task.method, **task.settings).samples
    assert samples.shape == (2, 24, 24)
    assert samples.is_complex()
    full = np.abs(
        np.fft.fftshift(np.fft.ifft2(np.fft.ifftshift(k, (-2, -1)), norm="ortho"), (-2, -1))
    )
    assert float(samples.abs().mean()) == pytest.approx(
        float(np.sqrt((full**2).sum(0)).mean()), rel=0.2
    )


def test_bart_files_numpy_files_and_masks_say_the_same(build, tmp_path):
    k, _ = scan(tmp_path)
    want = build().posterior.given
    write_cfl(tmp_path / "k.cfl", k.transpose(1, 2, 0)[None])
    np.save(tmp_path / "last.npy", k.transpose(1, 2, 0).astype(np.complex64))
    np.save(tmp_path / "mask.npy", k.any(0))
    np.save(tmp_path / "rows.npy", k.any((0, 2))[:, None])
    np.save(tmp_path / "double.npy", 2 * k)
    corner = np.fft.ifftshift(k, (-2, -1)).astype(np.complex64)
    np.save(tmp_path / "corner.npy", corner)
    for given in (
        build(file="k.cfl").posterior.given,
        build({"name": "mri", "coil_axis": "last"}, file="last.npy").posterior.given,
        build({"name": "mri", "mask": "mask.npy"}).posterior.given,
        build({"name": "mri", "mask": "rows.npy"}).posterior.given,
        build(measurement={"file": "double.npy", "scale": 0.5}).posterior.given,
    ):
        torch.testing.assert_close(given.y, want.y)
        torch.testing.assert_close(given.A.A.sensitivities, want.A.A.sensitivities)
        assert given.range == pytest.approx(want.range)
        assert given.noise.std == pytest.approx(want.noise.std)
    given = build({"name": "mri", "centred": False}, file="corner.npy").posterior.given
    torch.testing.assert_close(
        given.A.A.sensitivities,
        torch.fft.ifftshift(want.A.A.sensitivities, (-2, -1)),
        rtol=1e-4,
        atol=1e-5,
    )


def test_what_cannot_be_is_said(build, tmp_path):
    k, _ = scan(tmp_path)
    with pytest.raises(ValueError, match=r"takes a measured k-space, measurement: \{file"):
        build(measurement={"image": "k.npy"})
    with pytest.raises(ValueError, match="the noise law is complex-gaussian, not gaussian"):
        build(noise={"law": "gaussian", "sigma": 0.1, "range": [0, 1]})
    with pytest.raises(ValueError, match=r"Of a prior of colours: prior: \{grey: photos\}"):
        build(channels=3)
    with pytest.raises(
        ValueError, match="18 x 18 points are asked for, of the centre 14 x 18 are sampled"
    ):
        build({"name": "mri", "calibration": 18})
    np.save(tmp_path / "few.npy", np.where(np.arange(24) % 2, k, 0).astype(np.complex64))
    with pytest.raises(ValueError, match="too few to calibrate phase and scale"):
        build(file="few.npy")
    np.save(tmp_path / "mask.npy", np.eye(16))
    with pytest.raises(
        ValueError, match=r"mask.npy has shape \(16, 16\), the k-space has 24 x 24 points"
    ):
        build({"name": "mri", "mask": "mask.npy"})
    np.save(tmp_path / "maps.npy", maps(3))
    with pytest.raises(
        ValueError, match=r"maps of shape \(3, 24, 24\), the k-space has shape \(4, 24, 24\)"
    ):
        build({"name": "mri", "maps": "maps.npy"})
    with pytest.raises(ValueError, match="only the operator mri takes it from y"):
        build(
            {"name": "masked-fourier", "file": "k.npy"},
            channels=2,
            noise={"law": "complex-gaussian", "sigma_complex": 0.1},
        )
    with pytest.raises(
        ValueError, match="noise: give exactly one of sigma_per_channel and sigma_complex"
    ):
        build(
            {"name": "masked-fourier", "file": "k.npy"},
            channels=2,
            noise={"law": "complex-gaussian", "range": [-1, 1]},
        )


def test_a_trained_network_of_two_channels_takes_any_size(build, tmp_path):
    scan(tmp_path)
    torch.manual_seed(0)
    net = po.priors.UNet(channels=2, widths=(8,), blocks=(1,), embedding=8)
    prior = po.priors.Network(
        net, shape=(2, None, None), sigma_data=0.5, sigma_max=10.0, sigma_min=0.01
    )
    po.priors.save_pretrained(
        prior, tmp_path / "pairs", description="d", training_data="t", licence="CC0"
    )
    task = build(prior={"path": "pairs"})
    assert task.posterior.shape == (24, 24)
    assert po.sample(task.posterior, task.method, **task.settings).samples.shape == (2, 24, 24)
    grey = build(prior={"grey": "photos"})
    assert grey.posterior.shape == (1, 24, 24)


def radial(turn):
    """Five spokes of seven samples (5, 7, 2), in cycles per pixel times ``turn``."""
    angle, radius = np.pi * np.arange(5)[:, None] / 5, np.linspace(-0.45, 0.45, 7)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], -1) * turn


@pytest.mark.parametrize(
    ("unit", "turn"), [("cycles/pixel", 1), ("radians/pixel", 2 * np.pi), ("cycles/field", 24)]
)
@pytest.mark.parametrize("engine", ["sum", "finufft"])
def test_spokes_of_k_space_are_those_of_the_operator(build, tmp_path, unit, turn, engine):
    """In each unit of the trajectory, with the spokes apart or one after the other, of several
    coils and of one; by the fast transform, which is the default, where it is installed."""
    if engine == "finufft":
        pytest.importorskip("finufft")
    S, k = torch.from_numpy(maps()), torch.from_numpy(radial(1).reshape(-1, 2))
    np.save(tmp_path / "maps.npy", S.numpy())
    np.save(tmp_path / "spokes.npy", radial(turn))
    x = torch.randn(1, 2, 24, 24, generator=torch.Generator().manual_seed(0))
    level = {"law": "complex-gaussian", "sigma_per_channel": 0.01, "range": [-1, 1]}
    operator = {"name": "non-cartesian", "trajectory": "spokes.npy", "unit": unit, "engine": engine}
    for more, coils in (({"maps": "maps.npy"}, S), ({}, torch.ones(1, 24, 24).to(S))):
        A = po.operators.NonCartesianFourier(coils, k, engine="sum")
        y = A(torch.complex(x[:, 0], x[:, 1]))[0]
        for stored in (y, y.view(-1, 5, 7)):
            np.save(tmp_path / "k.npy", stored.numpy())
            given = build(operator | more, 2, noise=level).posterior.given
            assert torch.equal(given.y, y)
            torch.testing.assert_close(given.A(x)[0], y, rtol=1e-4, atol=1e-5)


def test_spokes_that_do_not_fit_are_named(build, tmp_path):
    np.save(tmp_path / "spokes.npy", radial(1))
    np.save(tmp_path / "k.npy", np.ones((5, 6), np.complex64))
    level = {"law": "complex-gaussian", "sigma_per_channel": 0.01, "range": [-1, 1]}
    operator = {"name": "non-cartesian", "trajectory": "spokes.npy", "engine": "sum"}
    with pytest.raises(ValueError, match=r"shape \(5, 6\), there are 35 samples, the maps have 1"):
        build(operator, 2, noise=level)
    np.save(tmp_path / "k.npy", np.ones(35, np.complex64))
    with pytest.raises(ValueError, match=r"two channels \(2, rows, columns\)"):
        build(operator, 1, noise=level)
    np.save(tmp_path / "maps.npy", np.ones((1, 8, 8), np.complex64))
    with pytest.raises(ValueError, match=r"maps of shape \(1, 8, 8\), images here are 24 x 24"):
        build(operator | {"maps": "maps.npy"}, 2, noise=level)
    np.save(tmp_path / "k.npy", np.ones(35, np.float32))
    with pytest.raises(ValueError, match="real numbers, k-space is complex"):
        build(operator, 2, noise=level)
    np.save(tmp_path / "spokes.npy", radial(4)[..., :1])
    np.save(tmp_path / "k.npy", np.ones(35, np.complex64))
    with pytest.raises(ValueError, match=r"shape \(5, 7, 1\), a trajectory is real"):
        build(operator, 2, noise=level)
