"""A problem file tells a prior in words what its images show."""

from __future__ import annotations

import numpy as np
import pytest
import yaml

import posteriori as po
from posteriori import problem_file


@pytest.fixture
def build(tmp_path):
    np.save(tmp_path / "y.npy", np.zeros((32, 32), np.float32))

    def make(**told):
        problem = {
            "measurement": {"file": "y.npy"},
            "operator": "identity",
            "noise": {"law": "gaussian", "sigma": 0.1, "range": [0, 1]},
            "method": "MMPS",
            "n": 1,
            "steps": 4,
            "prior": {"conditioned": {"prior": "text-digits"} | told},
        }
        (tmp_path / "task.yaml").write_text(yaml.safe_dump(problem))
        return problem_file.load(tmp_path / "task.yaml").build()

    return make


def test_the_prior_is_told_the_text_under_its_guidance(build):
    told = build(text="a nine", guidance=2.5, negative="a four").posterior.prior
    assert isinstance(told, po.priors.Latent)
    inner = told.prior
    assert isinstance(inner, po.priors.Conditioned)
    assert inner.guidance == 2.5
    wanted = po.priors.text_digits().conditioned("a nine", guidance=2.5, negative="a four")
    assert inner.record() == wanted.prior.record()
    assert build(text="a nine").posterior.prior.prior.guidance == 1


def test_what_is_missing_or_unknown_is_said(build):
    with pytest.raises(ValueError, match="text"):
        build(guidance=2.0)
    with pytest.raises(ValueError, match="unknown setting 'words'"):
        build(words="a nine")
    with pytest.raises(ValueError, match="has no text encoder to read 'a nine'"):
        build(text="a nine", prior="digits")
