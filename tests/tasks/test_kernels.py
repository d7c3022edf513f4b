"""The finite set of kernels: its exact draws, and what its score says of samples."""

import pytest
import torch

from posteriori import tasks
from posteriori.evaluation.blind import known_instrument
from posteriori.experiments.bed_scores import kernels_score
from posteriori.methods.blind.pair import blind_pair
from posteriori.packing import pack, unpack
from posteriori.tasks.kernels import exact_pairs, family_members, kernel_probabilities, kernels

F64 = torch.float64


def test_exact_draws_have_the_probabilities_of_the_kernels_and_the_images_given_them():
    """Within 4.5 standard errors."""
    n, post = 6000, kernels(1.0, 2).posterior
    p, members = kernel_probabilities(post), family_members(post)
    assert float(p.max()) < 0.9
    assert float(p[1]) == pytest.approx(float(p[3]), rel=1e-6)  # shifts of each other
    drawn = unpack(exact_pairs(post, n, 0), post.given.A.in_parts)
    which = torch.cdist(drawn["kernel"].flatten(1), members.flatten(1)).argmin(1)
    share = which.bincount(minlength=4).double() / n
    assert float(((share - p) / (p * (1 - p) / n).sqrt()).abs().max()) < 4.5
    for j, kernel in enumerate(members):
        exact, mine = known_instrument(post, kernel), drawn["image"][which == j]
        off = (mine.mean(0) - exact.mean) / exact.std * len(mine) ** 0.5
        assert float(off.abs().max()) < 4.5


def test_the_score_is_0_for_the_probabilities_and_sees_lost_and_strange_kernels():
    bed = kernels(0.03, 0)
    post, members = bed.posterior, family_members(bed.posterior)
    p = kernel_probabilities(post)
    count = (100 * p).round().long()
    images = torch.zeros(int(count.sum()), 1, 1, 24, dtype=F64)

    def score(k):
        return kernels_score(pack({"image": images[: len(k)], "kernel": k}), bed, images)

    right = members.repeat_interleave(count, 0)
    assert score(right)["TV"] == pytest.approx(0.0, abs=0.01)
    assert score(right)["astray"] == 0
    one = members[int(p.argmax())].expand(50, 1, 24)
    assert score(one)["TV"] == pytest.approx(1 - float(p.max()), abs=1e-6)
    assert score(one + 0.2)["astray"] == 1


def test_problems_are_draws_of_their_model_and_refuse_no_noise():
    """The true kernel has the probability that the model says: E p(j | y) = E sum_i p(i | y)^2.
    Over 60 problems, within 4.5 standard errors of the difference."""
    gaps = []
    for seed in range(60):
        bed = tasks.get("kernels", sigma=0.3, seed=seed).bed
        members, pair = family_members(bed.posterior), blind_pair(bed.posterior)
        truth = pair.A.told(bed.truth[None])
        assert truth["sum of the kernel"].item() == pytest.approx(1.0)
        kernel = unpack(bed.truth[None], pair.A.in_parts)["kernel"][0]
        j = int((members - kernel).square().sum((1, 2)).argmin())
        p = kernel_probabilities(bed.posterior)
        gaps.append(float(p[j] - p.square().sum()))
    gap = torch.tensor(gaps)
    assert abs(float(gap.mean())) < 4.5 * float(gap.std()) / 60**0.5
    with pytest.raises(ValueError, match="noise level > 0"):
        kernels(0.0)
