"""How good an ensemble is as a forecast of one truth, number by number, as weather services score
it.

    CRPS          E |X - x| - E |X - X'| / 2, X and X' two members: the distance of their law to the
                  truth, in the unit of x; 0 for members that all are x
    energy score  E ||X - x|| - E ||X - X'|| / 2 over sqrt(d), of whole images of d numbers: members
                  that are right number by number but not together lose here
    spread-skill  the spread of the members over the error of their mean: 1 where the truth is one
                  of them, below 1 where they are too sure

All are unbiased in the number of members: pairs are of two different members, and the spread is
multiplied by sqrt(1 + 1 / n), for the mean of n is itself uncertain.

Source: Gneiting and Raftery, Strictly proper scoring rules, prediction, and estimation, 2007;
Fortin et al., Why should ensemble spread match the RMSE of the ensemble mean?, 2014.
"""

from __future__ import annotations

from torch import Tensor


def crps(samples: Tensor, truth: Tensor) -> float:
    """The mean CRPS over the numbers of an image: samples (n, *E), n >= 2, truth E. Raises
    ``ValueError`` for other shapes."""
    x, t = _members(samples, truth)
    n = len(x)
    # sum_{i, j} |x_i - x_j| = 2 sum_i (2 i - n - 1) x_(i), of sorted members.
    ranks = 2 * x.new_tensor(range(1, n + 1)) - n - 1
    apart = 2 * (ranks[:, None] * x.sort(0).values).sum(0) / (n * (n - 1))
    return float(((x - t).abs().mean(0) - 0.5 * apart).mean())


def energy_score(samples: Tensor, truth: Tensor) -> float:
    """(mean |X - x| - mean |X - X'| / 2) / sqrt(d), of Euclidean lengths of all d numbers, X and X'
    two different samples: proper, unbiased in the number of samples, in the unit of one number.
    Arguments as of ``crps``.

    Source: Gneiting and Raftery, Strictly proper scoring rules, prediction, and estimation, 2007.
    """
    x, t = _members(samples, truth)
    n = len(x)
    apart = sum(float((x[i + 1 :] - x[i]).norm(dim=1).sum()) for i in range(n - 1))
    return (float((x - t).norm(dim=1).mean()) - apart / (n * (n - 1))) / t.numel() ** 0.5


def spread_skill(samples: Tensor, truth: Tensor) -> float:
    """sqrt((1 + 1 / n) mean variance) / RMSE of the mean, over the numbers of an image. Arguments
    as of ``crps``; infinite where the mean is the truth."""
    x, t = _members(samples, truth)
    spread = (1 + 1 / len(x)) * x.var(0).mean()
    error = (x.mean(0) - t).square().mean()
    return float((spread / error).sqrt())


def _members(samples: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
    if len(samples) < 2 or samples.shape[1:] != truth.shape:
        raise ValueError(
            f"an ensemble is (n, *E) with n >= 2 beside a truth E, got {tuple(samples.shape)} and "
            f"{tuple(truth.shape)}"
        )
    return samples.flatten(1).double(), truth.flatten().double()
