"""Runs are known by content: what differs is named, what is kept is written once, parts make the
whole."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from cases import NOISES, OPERATORS, PRIORS, toy

import posteriori as po
from posteriori import identity
from posteriori.operators.base import LinearOperator, norm2
from posteriori.priors.base import Prior
from posteriori.run import Run


class Stop(Exception):
    pass


def interrupted(post, method, folder, at, **settings):
    """A run that is stopped after ``at`` steps in all, with a checkpoint after each."""
    seen = []

    def count(k, s, rows, info):
        seen.append(k)
        if len(seen) == at:
            raise Stop

    with pytest.raises(Stop):
        po.sample(post, method, folder=folder, watch=[count], checkpoint_seconds=0, **settings)


def image_problem(std=1.0, mean=0.3, flip=False, sigma=0.1, kind=po.priors.Gaussian):
    y = torch.linspace(0, 1, 36).reshape(1, 6, 6)
    prior = kind(torch.full((1, 6, 6), mean), 0.04)
    A = po.operators.Blur(po.operators.gaussian_kernel(std, 5), (1, 6, 6))
    return po.Posterior(
        prior, po.Likelihood(y.flip(-1) if flip else y, A, po.noise.Gaussian(sigma))
    )


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"std": 2.5}, "operator.kernel: other numbers"),
        ({"mean": -0.9}, "prior.means: other numbers|prior.*: other numbers"),
        ({"flip": True}, "y: other numbers"),
        ({"sigma": 0.2}, "noise.sigma: 0.1 then, 0.2 now"),
    ],
)
def test_an_interrupted_run_is_not_completed_with_another_problem(tmp_path, changed, named):
    interrupted(image_problem(), po.methods.DiffPIR(), tmp_path, 6, n=2, steps=12)
    with pytest.raises(ValueError, match=named):
        po.sample(
            image_problem(**changed),
            po.methods.DiffPIR(),
            n=2,
            steps=12,
            folder=tmp_path,
            resume=True,
        )
    same = po.sample(
        image_problem(), po.methods.DiffPIR(), n=2, steps=12, folder=tmp_path, resume=True
    )
    assert torch.equal(
        same.samples, po.sample(image_problem(), po.methods.DiffPIR(), n=2, steps=12).samples
    )


def test_another_method_setting_or_grid_is_another_run(tmp_path):
    post = image_problem()
    interrupted(post, po.methods.DPS(), tmp_path, 3, n=1, steps=6)
    for method, named in (
        (po.methods.DPS(scale=0.5), "scale: 1.0 then, 0.5 now"),
        (po.methods.DPS(transition=po.methods.Heun()), "Heun"),
    ):
        with pytest.raises(ValueError, match=named):
            po.sample(post, method, n=1, steps=6, folder=tmp_path, resume=True)
    with pytest.raises(ValueError, match="cannot be resumed with others"):
        po.sample(post, po.methods.DPS(), n=1, steps=6, grid="log", folder=tmp_path, resume=True)
    with pytest.raises(ValueError, match="steps: 6 then, 7 now"):
        po.sample(post, po.methods.DPS(), n=1, steps=7, folder=tmp_path, resume=True)


class Private(LinearOperator):
    """An operator of somebody's own, whose numbers torch does not know of."""

    def __init__(self, weight):
        super().__init__((6,))
        self._weight = torch.as_tensor(weight)

    def forward(self, x):
        return self._weight * x


def test_numbers_that_a_class_of_ones_own_keeps_privately_count():
    one, other = Private(1.0), Private(2.0)
    before = one.record()
    assert list(identity.changes(before, other.record())) == ["_weight: other numbers"]
    norm2(one), one(torch.ones(1, 6))
    assert one.record() == before


@pytest.mark.parametrize("name", OPERATORS)
def test_the_record_of_an_operator_is_json_and_does_not_change_with_use(name):
    A = OPERATORS[name](torch.float64)
    before = A.record()
    assert json.loads(json.dumps(before)) == before
    x = A.probe(torch.ones, dtype=torch.float64)
    y = A(x)
    if isinstance(A, LinearOperator):
        A.adjoint(y), norm2(A)
    assert A.record() == before == OPERATORS[name](torch.float64).record()
    for tensor in [*A.parameters(), *A.buffers()]:
        if tensor.is_floating_point() and bool((tensor != 0).any()):
            tensor.mul_(1.5)
            assert any("other numbers" in line for line in identity.changes(before, A.record()))
            tensor.div_(1.5)


def test_the_records_of_priors_and_laws_are_json_and_repeat():
    for case in PRIORS.values():
        make = case[0] if isinstance(case, tuple) else case
        prior = make if isinstance(make, Prior) else make(torch.float64)
        record = prior.record()
        assert json.loads(json.dumps(record)) == record == prior.record()
    for law, *_ in NOISES.values():
        assert json.loads(json.dumps(law.record())) == law.record()


def test_a_digest_is_of_the_numbers_their_type_and_their_shape():
    x = torch.arange(6.0)
    assert (
        identity.digest(x)
        == identity.digest(x.clone())
        == identity.digest(torch.stack([x, x], 1)[:, 0])
    )
    assert (
        len({identity.digest(v) for v in (x, x.double(), x.view(2, 3), x + 1, -x, x.flip(0))}) == 6
    )
    z = torch.complex(x, x + 1)
    assert identity.digest(z.conj()) == identity.digest(z.conj().resolve_conj())
    assert identity.digest(z.conj()) != identity.digest(z)
    sparse = torch.tensor([[0.0, 2.0], [3.0, 0.0]])
    assert identity.digest(sparse.to_sparse_csr()) != identity.digest((2 * sparse).to_sparse_csr())
    assert (
        identity.content(np.array(0.5))["sha256"]
        == identity.content(torch.tensor(0.5, dtype=torch.float64))["sha256"]
    )


def test_a_network_is_known_by_its_weights():
    one, other = po.priors.digits(), po.priors.digits()
    assert one.record() == other.record()
    next(iter(other.net.parameters())).view(-1)[0] += 1e-3
    assert list(identity.changes(one.record(), other.record())) == ["net: other numbers"]


class Counting(po.priors.Gaussian):
    calls = 0

    def denoise(self, x, sigma):
        type(self).calls += len(x)
        return super().denoise(x, sigma)

    def linearize(self, x, sigma):
        type(self).calls += len(x)
        return super().linearize(x, sigma)


def test_resuming_a_complete_run_costs_no_denoiser_call(tmp_path):
    """Also where the levels come from a pilot."""
    prior = Counting(torch.zeros(4, dtype=torch.float64), 1.0)
    A = po.operators.Dense(torch.eye(4, dtype=torch.float64)[:2])
    post = po.Posterior(
        prior, po.Likelihood(torch.ones(2, dtype=torch.float64), A, po.noise.Gaussian(0.3))
    )
    method = po.methods.MomentSMC(particles=8, pilot=8)
    run = po.sample(post, method, n=8, steps=4, folder=tmp_path)
    Counting.calls = 0
    again = po.sample(post, method, n=8, steps=4, folder=tmp_path, resume=True)
    assert Counting.calls == 0
    assert torch.equal(again.samples, run.samples)
    assert again.counts == run.counts


def test_an_interrupted_pilot_run_counts_its_pilot_once(tmp_path):
    post, method = toy(), po.methods.MomentSMC(particles=8, pilot=8)
    straight = po.sample(post, method, n=8, steps=6)
    interrupted(post, method, tmp_path, 3, n=8, steps=6)
    done = po.sample(post, method, n=8, steps=6, folder=tmp_path, resume=True)
    assert torch.equal(done.samples, straight.samples)
    assert done.counts == straight.counts
    assert done.config["levels"] == straight.config["levels"]


def test_finished_batches_are_written_once_and_survive(tmp_path):
    """Seven samples by twos, stopped in the third batch: two files of rows, which are not touched
    again."""
    post, method = toy(), po.methods.MMPS()
    straight = po.sample(post, method, n=7, steps=5, batch=2)
    interrupted(post, method, tmp_path, 13, n=7, steps=5, batch=2)
    files = sorted((tmp_path / "rows").iterdir())
    assert [file.name for file in files] == ["00000000.safetensors", "00000002.safetensors"]
    stamps = [file.stat().st_mtime_ns for file in files]
    # As if it had been killed before the first checkpoint of the third batch.
    (tmp_path / "checkpoint.safetensors").unlink()
    interrupted(post, method, tmp_path, 2, n=7, steps=5, batch=2, resume=True)
    assert [file.stat().st_mtime_ns for file in files] == stamps
    done = po.sample(post, method, n=7, steps=5, batch=2, folder=tmp_path, resume=True)
    assert torch.equal(done.samples, straight.samples)
    assert done.counts == straight.counts
    assert torch.equal(done.trace["residual"], straight.trace["residual"])
    assert sorted(path.name for path in tmp_path.iterdir() if not path.name.startswith(".")) == [
        "run.json", "samples.safetensors", "summary.json"
    ]  # fmt: skip
    assert torch.equal(Run.load(tmp_path).samples, straight.samples)


@pytest.mark.parametrize(
    "method",
    [
        po.methods.MMPS(),
        po.methods.DAPS(),
        po.methods.TDS(particles=4),
        po.methods.TDS(particles=4, single=True),
    ],
    ids=str,
)
def test_parts_of_a_run_merge_to_the_same_numbers(tmp_path, method):
    post = toy()
    cut = 3 * method.returned
    whole = po.sample(post, method, n=5 * method.returned, steps=6, seed=3)
    parts = [
        po.sample(post, method, n=cut, steps=6, seed=3),
        po.sample(post, method, n=2 * method.returned, first=cut, steps=6, seed=3),
    ]
    merged = Run.merge(parts[::-1])
    torch.testing.assert_close(merged.samples, whole.samples, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(merged.log_w, whole.log_w)
    assert merged.status == whole.status
    # What a batch asks once, such as the columns of A, is asked once a part.
    assert all(
        merged.counts[kind] == whole.counts[kind] for kind in ("denoiser", "vjp", "operator")
    )
    assert merged.config["n"] == whole.config["n"]
    assert (merged.log_evidence is None) == (whole.log_evidence is None)
    if whole.log_evidence is not None:
        assert merged.log_evidence == pytest.approx(whole.log_evidence, abs=1e-9)
    merged.save(tmp_path)
    assert torch.equal(Run.load(tmp_path).samples, merged.samples)


def test_what_is_no_part_is_not_merged():
    post, method = toy(), po.methods.MMPS()
    a = po.sample(post, method, n=2, steps=3)
    with pytest.raises(ValueError, match="samples 2 to 3 are missing"):
        Run.merge([a, po.sample(post, method, n=1, first=4, steps=3)])
    with pytest.raises(ValueError, match="sample 1 is there twice"):
        Run.merge([a, po.sample(post, method, n=1, first=1, steps=3)])
    with pytest.raises(ValueError, match="seed: 0 then, 1 now"):
        Run.merge([a, po.sample(post, method, n=1, first=2, steps=3, seed=1)])
    with pytest.raises(
        ValueError, match="first must be an integer >= 0, a multiple of the 4 samples"
    ):
        po.sample(post, po.methods.TDS(particles=4), n=4, first=2, steps=3)
    with pytest.raises(ValueError, match="first must be an integer >= 0, got -1"):
        po.sample(post, method, n=1, first=-1, steps=3)


def test_what_is_left_of_a_run_without_a_record_is_not_taken_up(tmp_path):
    """Rows and a checkpoint of another problem, whose run.json is gone: a new run there is its
    own."""
    interrupted(image_problem(std=2.5), po.methods.DiffPIR(), tmp_path, 3, n=3, steps=5, batch=1)
    assert (tmp_path / "checkpoint.safetensors").exists()
    (tmp_path / "run.json").unlink()
    run = po.sample(image_problem(), po.methods.DiffPIR(), n=3, steps=5, batch=1, folder=tmp_path)
    assert torch.equal(
        run.samples, po.sample(image_problem(), po.methods.DiffPIR(), n=3, steps=5, batch=1).samples
    )
