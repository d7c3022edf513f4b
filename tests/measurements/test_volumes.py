"""Volumes in and out: the numbers, where they lie, and nothing about whose they are."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from reference import draw
from scans import INTERCEPT, SECRETS, SLOPE, STORED, series

from posteriori.measurements import VolumeInfo, read_volume, write_series, write_volume


def test_a_series_is_in_hounsfield_units_and_in_the_order_of_positions(tmp_path):
    folder = series(tmp_path / "scan", STORED, order=[2, 0, 3, 1])
    (folder / "notes.txt").write_text("no DICOM")
    x, info = read_volume(folder)
    np.testing.assert_array_equal(x.numpy(), (SLOPE * STORED + INTERCEPT).astype(np.float32))
    assert info.unit == "HU"
    assert info.notes == ()
    assert info.spacing_mm == pytest.approx((2.5, 0.7, 0.6))
    # (column, row, slice) = (4, 2, 3) in DICOM's own millimetres, then to the right and front.
    point = info.affine @ torch.tensor([4.0, 2.0, 3.0, 1.0], dtype=torch.float64)
    lps = [-10 + 4 * 0.6, 20 + 2 * 0.7, 5 + 3 * 2.5]
    assert point.tolist() == pytest.approx([-lps[0], -lps[1], lps[2], 1.0])


def test_a_series_of_slices_seen_from_the_side_is_ordered_along_their_normal(tmp_path):
    folder = series(tmp_path / "scan", STORED, turn=(0, 1, 0, 0, 0, -1), order=[3, 1, 0, 2])
    x, info = read_volume(folder)
    np.testing.assert_array_equal(x[:, 0, 0].numpy(), SLOPE * STORED[:, 0, 0] + INTERCEPT)
    normal = np.cross([0, 1, 0], [0, 0, -1])
    assert info.affine[:3, 2].tolist() == pytest.approx((2.5 * normal * [-1, -1, 1]).tolist())


def test_no_patient_field_goes_from_a_series_into_what_is_written(tmp_path):
    pytest.importorskip("nibabel")
    x, info = read_volume(series(tmp_path / "scan", STORED))
    out = tmp_path / "out"
    out.mkdir()
    for name in ("scan.nii", "scan.npy"):
        write_volume(out / name, x, info)
    (out / "info.txt").write_text(repr(info))
    told = b"".join(file.read_bytes() for file in sorted(out.iterdir()))
    for secret in SECRETS.values():
        assert secret.encode() not in told
        for part in secret.split("^"):
            assert len(part) < 2 or part.encode() not in told
    assert any(
        SECRETS["PatientID"].encode() in f.read_bytes() for f in (tmp_path / "scan").iterdir()
    )


@pytest.mark.parametrize("name", ["volume.nii", "volume.nii.gz"])
def test_nifti_keeps_numbers_and_affine(tmp_path, name):
    nibabel = pytest.importorskip("nibabel")
    affine = torch.tensor(
        [[-0.6, 0.1, 0, 10], [0, 0.7, 0.2, -20], [0, 0, 2.5, 5], [0, 0, 0, 1]], dtype=torch.float64
    )
    x = draw(4, 3, 5, dtype=torch.float32)
    write_volume(tmp_path / name, x, VolumeInfo(affine))
    again, info = read_volume(tmp_path / name)
    assert torch.equal(again, x)
    torch.testing.assert_close(info.affine, affine, rtol=1e-6, atol=1e-6)
    # As others read it: columns first.
    other = nibabel.load(tmp_path / name)
    np.testing.assert_array_equal(other.get_fdata(), x.numpy().T)
    first = (tmp_path / name).read_bytes()
    write_volume(tmp_path / name, x, VolumeInfo(affine))
    assert (tmp_path / name).read_bytes() == first


def test_nifti_is_scaled_as_its_header_says_and_states_no_place_it_does_not_know(tmp_path):
    nibabel = pytest.importorskip("nibabel")
    image = nibabel.Nifti1Image(STORED.T.astype(np.int16), None)
    image.header.set_slope_inter(SLOPE, INTERCEPT)
    nibabel.save(image, tmp_path / "scan.nii")
    x, info = read_volume(tmp_path / "scan.nii")
    np.testing.assert_array_equal(x.numpy(), SLOPE * STORED.astype(np.float32) + INTERCEPT)
    assert info.affine is None
    assert info.spacing_mm is None


def test_a_plain_array_is_a_volume(tmp_path):
    x = draw(4, 3, 5, dtype=torch.float32)
    write_volume(tmp_path / "volume.npy", x)
    again, info = read_volume(tmp_path / "volume.npy")
    assert torch.equal(again, x)
    assert info == VolumeInfo()


def test_series_that_are_no_volume_are_refused_by_name(tmp_path):
    with pytest.raises(ValueError, match="2 slices lie at the place of another"):
        read_volume(series(tmp_path / "same", STORED, places=[0, 0, 2.5, 2.5]))
    with pytest.raises(ValueError, match="2.5 to 5 mm apart: some are missing"):
        read_volume(series(tmp_path / "gap", STORED, places=[0, 2.5, 7.5, 10]))
    series(tmp_path / "two", STORED)
    series(tmp_path / "two", STORED, order=[10, 11, 12, 13])
    with pytest.raises(ValueError, match="holds 2 DICOM series") as error:
        read_volume(tmp_path / "two")
    assert not any(secret in str(error.value) for secret in SECRETS.values())
    (tmp_path / "none").mkdir()
    with pytest.raises(ValueError, match="holds no DICOM image"):
        read_volume(tmp_path / "none")


def test_other_shapes_and_suffixes_are_refused_by_name(tmp_path):
    np.save(tmp_path / "four.npy", np.zeros((2, 3, 4, 5), dtype=np.float32))
    with pytest.raises(ValueError, match=r"shape \(2, 3, 4, 5\); a volume is real, of three axes"):
        read_volume(tmp_path / "four.npy")
    np.save(tmp_path / "nan.npy", np.full((2, 3, 4), np.nan, dtype=np.float32))
    with pytest.raises(ValueError, match="24 of 24 values are not finite"):
        read_volume(tmp_path / "nan.npy")
    with pytest.raises(ValueError, match="volumes are written as"):
        write_volume(tmp_path / "volume.mat", torch.zeros(2, 3, 4))
    with pytest.raises(ValueError, match=r"of shape \(D, H, W\)"):
        write_volume(tmp_path / "volume.npy", torch.zeros(3, 4))


AFFINE = torch.tensor(
    [[-0.6, 0.0, 0.3, 10], [0, -0.7, 0.1, -20], [0, 0, 2.5, 5], [0, 0, 0, 1]], dtype=torch.float64
)
# All that a series that is written says.
FIELDS = {
    *("SOPClassUID", "Modality", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID"),
    *("FrameOfReferenceUID", "ImageType", "InstanceNumber", "Rows", "Columns", "PixelSpacing"),
    *("SliceThickness", "ImagePositionPatient", "ImageOrientationPatient", "SamplesPerPixel"),
    *("PhotometricInterpretation", "BitsAllocated", "BitsStored", "HighBit", "RescaleSlope"),
    *("PixelRepresentation", "RescaleIntercept", "RescaleType", "PixelData"),
}


def test_a_series_that_is_written_is_read_again_to_half_a_stored_unit(tmp_path):
    pydicom = pytest.importorskip("pydicom")
    x = 1200 * draw(4, 3, 5) - 300
    step = write_series(tmp_path / "out", x, AFFINE, "HU")
    assert step == pytest.approx(float(x.max() - x.min()) / 65000, rel=1e-5)
    again, info = read_volume(tmp_path / "out")
    assert float((again - x).abs().max()) <= step / 2 * (1 + 1e-3)
    assert info.unit == "HU"
    # Every slice lies where the affine says, though the slices are not stacked at right angles.
    for k, file in enumerate(sorted((tmp_path / "out").iterdir())):
        s = pydicom.dcmread(file)
        assert {element.keyword for element in s} == FIELDS
        place = AFFINE @ torch.tensor([0.0, 0.0, k, 1.0], dtype=torch.float64)
        lps = (place[:3] * torch.tensor([-1.0, -1.0, 1.0])).tolist()
        assert [float(v) for v in s.ImagePositionPatient] == pytest.approx(lps)
        assert [float(v) for v in s.PixelSpacing] == pytest.approx([0.7, 0.6])
    first = [file.read_bytes() for file in sorted((tmp_path / "out").iterdir())]
    write_series(tmp_path / "out", x, AFFINE, "HU")
    assert [file.read_bytes() for file in sorted((tmp_path / "out").iterdir())] == first
    write_series(tmp_path / "flat", torch.full((2, 3, 5), 7.0), AFFINE, "")
    assert torch.equal(read_volume(tmp_path / "flat")[0], torch.full((2, 3, 5), 7.0))


def test_a_series_needs_a_place_and_right_angles(tmp_path):
    pytest.importorskip("pydicom")
    with pytest.raises(ValueError, match="which this volume does not know"):
        write_series(tmp_path / "out", torch.zeros(2, 3, 5), None, "")
    skew = AFFINE.clone()
    skew[0, 1] = 0.5
    with pytest.raises(ValueError, match="not at right angles"):
        write_series(tmp_path / "out", torch.zeros(2, 3, 5), skew, "")
    assert not (tmp_path / "out").exists()
