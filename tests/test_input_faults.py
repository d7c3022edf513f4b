"""What a user may hand in wrongly, and the test that shows what happens then.

One row for each kind of fault: what is expected, and the tests of it, FILE::NAME. A row whose test
has gone, or was renamed, fails.
"""

from __future__ import annotations

import ast
from functools import cache

import numpy as np
import pytest
from reference import REPOSITORY

from posteriori.measurements import read_measured

FAULTS = {
    "weights that would run code": (
        "refused by the name of their class; nothing is run",
        "priors/test_pretrained.py::test_a_pickle_with_code_is_refused_by_the_name_of_its_class",
        "priors/test_edm_files.py::test_what_a_pickle_asks_for_is_not_run_and_is_named",
        "measurements/test_formats.py::test_pickled_objects_of_npz_are_refused",
        "measurements/test_measurements.py::test_no_file_is_ever_executed",
    ),
    "a pickle of EDM without its authors' code": (
        "read without running it",
        "priors/test_edm_files.py::test_a_pickle_with_its_class_in_it_is_read_without_running_it",
    ),
    "weights cut off, empty, a web page, a Git-LFS pointer": (
        "one line with the cause and the path",
        "priors/test_pretrained.py::test_damaged_weights_are_explained_in_one_line",
        "priors/test_pretrained.py::test_damaged_pickles_are_explained_in_one_line",
    ),
    "a flipped bit in the weights": (
        "another digest than the card's is an error",
        "priors/test_pretrained.py::test_a_flipped_bit_is_found",
    ),
    "names with a prefix, or none that fit": (
        "known prefixes are left out, all names are wanted, the first missing are listed",
        "priors/test_pretrained.py::test_weights_are_found_under_the_usual_names",
        "priors/test_pretrained.py::test_missing_and_extra_names_list_the_first_three",
        "priors/test_load.py::test_a_file_of_which_nothing_would_be_loaded_is_refused",
    ),
    "a network with a learned variance, of unknown flags": (
        "everything that shapes tell is read from them",
        "priors/test_adm.py::test_everything_but_the_heads_is_read_from_names_and_shapes",
        "priors/test_network.py::test_learned_variance_is_left_out_and_said_once",
    ),
    "another parametrisation, schedule or sigma_data": (
        "the doctor's line tweedie fails",
        "priors/test_network.py::"
        "test_wrong_parametrisations_schedules_and_ranges_are_found_on_known_images",
        "examination/test_doctor.py::test_a_planted_fault_trips_its_line_and_no_other",
    ),
    "data of another range": (
        "the range is asked for, whole numbers are refused, the doctor's line range fails",
        "test_likelihood.py::test_a_prior_with_a_range_wants_the_measurement_to_state_one",
        "test_likelihood.py::test_bad_measurements_are_refused_by_name",
        "problem_file/test_problem_file.py::test_whole_numbers_that_are_no_picture_need_a_scale",
        "examination/test_doctor.py::test_a_planted_fault_trips_its_line_and_no_other",
    ),
    "a noise level in the other unit": (
        "the residual of a run is flagged, the doctor's line noise fails",
        "evaluation/test_evaluation.py::test_a_wrong_unit_of_sigma_is_flagged",
        "test_likelihood.py::test_a_noise_level_given_for_0_1_meets_a_prior_in_minus_1_1",
        "examination/test_doctor.py::test_a_planted_fault_trips_its_line_and_no_other",
    ),
    "an adjoint that is none, a norm far from 1": (
        "refused with both numbers; the norm is measured",
        "operators/test_operators.py::"
        "test_interpolating_up_is_not_the_adjoint_of_interpolating_down",
        "operators/test_operators.py::test_a_constant_ratio_is_named_with_its_cure",
        "operators/test_operators.py::test_a_unit_norm_is_measured_not_trusted",
        "examination/test_doctor.py::test_a_planted_fault_trips_its_line_and_no_other",
    ),
    "a measurement of another shape": (
        "refused with both shapes before a denoiser is called",
        "operators/test_operators.py::test_measurements_of_a_wrong_shape_are_refused_with_both_shapes",
        "test_likelihood.py::test_prior_and_operator_shapes_must_meet",
    ),
    "NaN or infinity in y or in a mask": (
        "refused with their count and the first place; holes only where they are declared",
        "test_likelihood.py::test_bad_measurements_are_refused_by_name",
        "problem_file/test_problem_file.py::test_values_without_data_may_be_hidden_and_nothing_else",
        "problem_file/test_problem_file.py::test_a_picture_with_holes_gives_its_observed_pixels",
    ),
    "a run folder that another process writes": (
        "the second is kept out",
        "test_driver.py::test_a_second_process_is_kept_out_of_a_run_folder",
    ),
    "a full disk": (
        "the file is named, and the run goes on to the same bits",
        "cli/test_resuming.py::"
        "test_solve_on_a_full_disk_says_which_file_and_goes_on_to_the_same_bits",
    ),
    "HDF5 under somebody's lock, or half-written": (
        "read without a lock; the file is named",
        "test_input_faults.py::test_a_file_that_is_being_written_is_read_or_named",
        "measurements/test_formats.py::test_damaged_files_are_named",
    ),
    "a typing error in a file, a number as text, an unknown method": (
        "field, value and the nearest known name",
        "problem_file/test_problem_file.py::"
        "test_a_mistake_is_refused_with_field_value_and_suggestion",
        "cli/test_cli.py::test_mistakes_are_named_with_a_suggestion",
        "cli/test_cli.py::test_numbers_written_with_an_exponent_are_numbers",
    ),
    "a path out of its folder, a picture of billions of pixels": (
        "refused",
        "priors/test_diffusers_steps.py::test_weights_in_several_files",
        "measurements/test_measurements.py::test_the_limit_of_pixels_stays",
    ),
    "DICOM with a patient's name, or a slope": (
        "slope and intercept are applied, nothing of the patient is written",
        "measurements/test_dicom.py::test_each_slice_has_its_own_slope",
        "measurements/test_volumes.py::"
        "test_no_patient_field_goes_from_a_series_into_what_is_written",
        "cli/test_volumes.py::"
        "test_a_series_in_hounsfield_units_is_solved_and_no_patient_is_in_the_folder",
    ),
    "resuming after a change": (
        "refused, naming what was and what is",
        "cli/test_cli.py::test_a_problem_that_changed_is_not_resumed",
        "test_driver.py::test_resuming_with_other_settings_is_refused",
    ),
}


@cache
def _names(file):
    tree = ast.parse((REPOSITORY / "tests" / file).read_text())
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("fault", FAULTS)
def test_every_fault_has_its_tests(fault):
    expected, *tests = FAULTS[fault]
    assert expected
    assert tests
    for place in tests:
        file, name = place.split("::")
        assert name in _names(file), f"{place} is not there"


def test_a_file_that_is_being_written_is_read_or_named(tmp_path):
    """A file that another program holds open for writing, whose lock would refuse a reader that
    asks for one; and one that was cut off in the middle."""
    h5py, fcntl = pytest.importorskip("h5py"), pytest.importorskip("fcntl")
    array = np.arange(600.0, dtype=np.float32).reshape(20, 30)
    with h5py.File(tmp_path / "y.h5", "w") as file:
        file["y"] = array
    with (tmp_path / "y.h5").open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(OSError, match="lock"):
            h5py.File(tmp_path / "y.h5", "r", locking=True)
        read = read_measured(tmp_path / "y.h5")
        np.testing.assert_array_equal(np.asarray(read.data), array)
    whole = (tmp_path / "y.h5").read_bytes()
    (tmp_path / "half.h5").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"half\.h5 cannot be read as HDF5, or was not written"):
        read_measured(tmp_path / "half.h5")
