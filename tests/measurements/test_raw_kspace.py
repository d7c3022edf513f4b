"""k-space of fastMRI and ISMRMRD: every line at its place, nothing about whose it is."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from posteriori.measurements import read_measured

SECRET = "SECRET-ID-4711"
HEADER = """<?xml version="1.0"?>
<ismrmrdHeader xmlns="http://www.ismrm.org/ISMRMRD">
<subjectInformation><patientName>Doe Jane {secret}</patientName></subjectInformation>
<experimentalConditions><H1resonanceFrequency_Hz>63500000</H1resonanceFrequency_Hz></experimentalConditions>
<encoding><encodedSpace><matrixSize><x>{x}</x><y>{y}</y><z>1</z></matrixSize>
<fieldOfView_mm><x>{fx}</x><y>{fy}</y><z>5</z></fieldOfView_mm></encodedSpace>
<reconSpace><matrixSize><x>{x}</x><y>{y}</y><z>1</z></matrixSize>
<fieldOfView_mm><x>{fx}</x><y>{fy}</y><z>5</z></fieldOfView_mm></reconSpace>
<trajectory>{trajectory}</trajectory>
<encodingLimits><kspace_encoding_step_1><minimum>0</minimum><maximum>{last}</maximum>
<center>{centre}</center></kspace_encoding_step_1></encodingLimits>
</encoding></ismrmrdHeader>"""
X, Y, COILS = 8, 6, 3


def header(centre=Y // 2, trajectory="cartesian"):
    return HEADER.format(
        secret=SECRET, x=X, y=Y, fx=16.0, fy=18.0, last=Y - 1, centre=centre, trajectory=trajectory
    )


def grid(*shape, seed=0):
    made = np.random.default_rng(seed)
    return (made.normal(size=shape) + 1j * made.normal(size=shape)).astype(np.complex64)


def written(place, lines, xml):
    """A file by the format's own library. lines: (numbers (coils, samples), settings) each."""
    ismrmrd = pytest.importorskip("ismrmrd")
    with ismrmrd.Dataset(str(place), "dataset", create_if_needed=True) as data:
        data.write_xml_header(xml.encode())
        for numbers, told in lines:
            line = ismrmrd.Acquisition.from_array(numbers)
            line.center_sample = told.get("centre", numbers.shape[1] // 2)
            for flag in told.get("flags", ()):
                line.setFlag(flag)
            for name in ("kspace_encode_step_1", "slice", "repetition", "contrast"):
                setattr(line.idx, name, told.get(name, 0))
            line.position[:], line.slice_dir[:] = told.get("position", (0, 0, 0)), (0, 0, 1)
            line.discard_pre = told.get("discard", 0)
            data.append_acquisition(line)
    return place


def rows(k, **told):
    return [(k[:, row], {"kspace_encode_step_1": row, **told}) for row in range(Y)]


def test_lines_of_ismrmrd_lie_where_their_counters_say(tmp_path):
    ismrmrd = pytest.importorskip("ismrmrd")
    k = grid(COILS, Y, X)
    lines = rows(k)[::-1]
    # Noise, a line that was acquired twice, and one read backwards
    lines.insert(0, (grid(COILS, 20, seed=5), {"flags": [ismrmrd.ACQ_IS_NOISE_MEASUREMENT]}))
    lines[3] = (lines[3][0] + 1, lines[3][1])
    lines.append((lines[3][0] - 2, lines[3][1]))
    back, told = lines[1]
    lines[1] = (
        back[:, ::-1].copy(),
        told | {"flags": [ismrmrd.ACQ_IS_REVERSE], "centre": X // 2 - 1},
    )
    m = read_measured(written(tmp_path / "scan.h5", lines, header()))
    assert m.axes == "ZCYX"
    np.testing.assert_allclose(m.data[0].numpy(), k, atol=1e-6)
    assert m.arrays["pixel_mm"].tolist() == [5.0, 3.0, 2.0]
    said = " ".join(m.notes)
    assert "1 lines are no part of the image" in said
    assert "acquired up to 2 times are averaged" in said
    assert SECRET not in repr(m) + said
    assert b"Doe Jane" in (tmp_path / "scan.h5").read_bytes()


def test_a_part_of_the_lines_keeps_the_zero_frequency_in_the_middle(tmp_path):
    """Partial Fourier: the counter 1 is the centre; a short echo: sample 2 of 6 is."""
    k = grid(COILS, Y, X)
    lines = [(k[:, row, 2:], {"kspace_encode_step_1": row - 2, "centre": 2}) for row in range(2, Y)]
    m = read_measured(written(tmp_path / "scan.h5", lines, header(centre=1)))
    expected = k.copy()
    expected[:, :2], expected[:, :, :2] = 0, 0
    np.testing.assert_array_equal(m.data[0].numpy(), expected)
    dropped = [(numbers, told | {"discard": 1}) for numbers, told in rows(k)]
    m = read_measured(written(tmp_path / "short.h5", dropped, header()))
    assert not m.data[..., 0].any()
    np.testing.assert_array_equal(m.data[0, :, :, 1:].numpy(), k[:, :, 1:])


def test_slices_of_ismrmrd_are_ordered_by_their_places_and_repetitions_are_times(tmp_path):
    """Slices are numbered in the order of acquisition, which is interleaved."""
    k = grid(2, 3, COILS, Y, X)
    places = [0.0, 10.0, 5.0]
    lines = [
        line
        for t in range(2)
        for s in range(3)
        for line in rows(k[t, s], repetition=t, slice=s, position=(0, 0, places[s]))
    ]
    m = read_measured(written(tmp_path / "scan.h5", lines, header()))
    assert m.axes == "TZCYX"
    np.testing.assert_array_equal(m.data.numpy(), k[:, [0, 2, 1]])


def test_raw_data_that_are_no_grid_are_refused_by_name(tmp_path):
    k = grid(COILS, Y, X)
    with pytest.raises(ValueError, match="has a spiral trajectory"):
        read_measured(written(tmp_path / "a.h5", rows(k), header(trajectory="spiral")))
    with pytest.raises(ValueError, match="lines of the first encoding from 2 to 7 lie outside"):
        read_measured(written(tmp_path / "b.h5", rows(k), header(centre=1)))
    both = [*rows(k), *rows(k, repetition=1, contrast=1)]
    with pytest.raises(ValueError, match="repetition and contrast run at once"):
        read_measured(written(tmp_path / "c.h5", both, header()))
    long = [(grid(COILS, X + 2), {})]
    with pytest.raises(ValueError, match=f"does not fit a readout of {X}"):
        read_measured(written(tmp_path / "d.h5", long, header()))


@pytest.mark.parametrize("coils", [True, False])
def test_fastmri_is_read_with_mask_pixels_and_reference_and_no_patient(tmp_path, coils):
    h5py = pytest.importorskip("h5py")
    k = grid(2, COILS, Y, X) if coils else grid(2, Y, X)
    mask, truth = np.arange(X) % 2 == 0, np.abs(grid(2, Y, Y)).astype(np.float32)
    with h5py.File(tmp_path / "file1.h5", "w") as file:
        # Columns are phase-encoded, and the readout runs along the rows.
        xml = header().replace(f"<x>{X}</x><y>{Y}</y>", f"<x>{Y}</x><y>{X}</y>")
        file["kspace"], file["mask"], file["ismrmrd_header"] = k * mask, mask, xml
        file["reconstruction_rss" if coils else "reconstruction_esc"] = truth
        file.attrs["patient_id"] = SECRET
    m = read_measured(tmp_path / "file1.h5")
    assert m.axes == ("ZCYX" if coils else "ZYX")
    np.testing.assert_array_equal(m.data.numpy(), k * mask)
    np.testing.assert_array_equal(m.arrays["mask"].numpy(), mask)
    np.testing.assert_array_equal(m.arrays["reference"].numpy(), truth)
    assert m.arrays["pixel_mm"].tolist() == pytest.approx([5.0, 16.0 / Y, 18.0 / X])
    assert SECRET not in repr(m) + " ".join(m.notes)
    with h5py.File(tmp_path / "real.h5", "w") as file:
        file["kspace"] = np.abs(k)
    with pytest.raises(ValueError, match="complex ones are expected"):
        read_measured(tmp_path / "real.h5")


def test_the_centre_of_fastmri_is_that_of_our_transform(tmp_path):
    """An image of ones has its only k-space point at (H // 2, W // 2), also at odd sides."""
    from posteriori.operators import MaskedFourier

    for H, W in ((6, 8), (7, 9)):
        A = MaskedFourier(torch.ones(H, W, dtype=torch.bool), (H, W))
        k = A.transform(torch.ones(H, W, dtype=torch.complex64))
        assert abs(k[H // 2, W // 2]) == pytest.approx((H * W) ** 0.5, rel=1e-5)
