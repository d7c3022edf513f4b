"""What is said of a file of settings that is not YAML, or says one thing twice."""

import pytest
import yaml

from posteriori import problem_file
from posteriori.training.config import read_config
from posteriori.yaml_file import read_yaml


def written(folder, text, name="p.yaml"):
    (folder / name).write_text(text)
    return folder / name


def test_what_is_yaml_is_read_as_yaml_reads_it(tmp_path):
    text = "a: &one {k: 1, l: [2, {m: 3}]}\nb: {<<: *one, k: 2}\nd: [k: 1, k: 2]\n"
    assert read_yaml(written(tmp_path, text)) == yaml.safe_load(text)
    assert read_yaml(written(tmp_path, "")) is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: 1\nb: {c: 1\nd: {e: 2}\n", "line 3, column 2: .*from line 2"),
        ("a: 1\nb: *c\n", "line 2, column 4: .*undefined alias"),
        ("a: \x07\n", "special characters"),
        (
            "a: 1\nb: 2\na: 3\n",
            "line 3, column 1: 'a' stands twice .*, first in line 1",
        ),
        ("a: {b: {c: 1, c: 1}}\n", "line 1, column 15: 'c' stands twice"),
    ],
)
def test_a_mistake_is_told_with_its_place_whoever_reads_the_file(tmp_path, text, said):
    file = written(tmp_path, text)
    for read in (read_yaml, problem_file.load, read_config):
        with pytest.raises(ValueError, match=f"p.yaml is not YAML: .*{said}") as told:
            read(file)
        assert "\n" not in str(told.value)


def test_a_file_that_does_not_claim_to_be_yaml_is_told_for_what_it_is(tmp_path):
    with pytest.raises(ValueError, match=r"p.png is not YAML. It is a picture"):
        read_yaml(written(tmp_path, "\x07", "p.png"))
