"""Every claim of every method is checked, a false one does not pass, and a claim that nothing
proves is refused."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import pytest
from cases import bed

from posteriori import methods
from posteriori.cli.listing import method_table
from posteriori.driver import sample
from posteriori.evaluation import exact_posterior, gaussian_kl, moments, oracle
from posteriori.testing import CLAIMS, check_claims, check_method
from posteriori.testing.claims import DRAWS, LIMIT, STEPS, gaussian_problem

FLAT, INNER, WHITE, ANY, RANGE, LEARNED = CLAIMS
CLAIMED = [(name, claim) for name, method in methods.ALL.items() for claim in sorted(method.claims)]


@pytest.mark.parametrize(("name", "claim"), CLAIMED)
def test_every_method_holds_what_it_claims(name, claim):
    CLAIMS[claim].check(methods.ALL[name]())


def test_claims_are_those_that_are_proven_and_each_is_claimed():
    assert {claim for _, claim in CLAIMED} == set(CLAIMS)
    assert all(claim.sentence.endswith(".") for claim in CLAIMS.values())
    assert all(
        f"- *{name}*: {claim.sentence}" in method_table([]) for name, claim in CLAIMS.items()
    )


# False claims, each of which a planted string would make: (method, claim).
FALSE = [
    ("DSG", ANY),
    ("DSG", FLAT),
    ("DPS", WHITE),
    ("PiGDM", ANY),
    ("DiffPIR", ANY),
    ("DDS", ANY),
    ("DDRM", FLAT),
    ("REDDiff", FLAT),
    ("PnPDM", FLAT),
    ("DPS", INNER),
    ("Unconditional", WHITE),
    ("DPS", RANGE),
    ("DDS", RANGE),
    ("DDNM", LEARNED),
]


@pytest.mark.parametrize(("name", "claim"), FALSE)
def test_a_false_claim_does_not_pass(name, claim, monkeypatch):
    assert claim not in methods.ALL[name].claims
    monkeypatch.setattr(methods.ALL[name], "claims", frozenset({claim}))
    with pytest.raises(AssertionError, match=name):
        check_claims(methods.ALL[name]())


# True in the default setting, on these problems and at this limit, and not claimed: where weights
# or inner loops have not been shown to be exact, or it goes without saying.
UNSAID = {
    LEARNED: ("Unconditional", "Peng", "DAPS"),
    RANGE: ("Unconditional", "DDRM", "DMPS", "ILVR", "ScoreSDE", "REDDiff", "PnPDM", "ReSample"),
    ANY: ("ScorePriorVI", "DDSMC", "FPS", "MomentSMC", "TDS", "DAPS"),
    WHITE: ("ILVR", "RePaint", "ScoreSDE", "ScorePriorVI", "DDSMC", "FPS", "MomentSMC", "TDS"),
    FLAT: ("ILVR", "MCG", "RePaint", "ScoreALD", "ScoreSDE", "ScorePriorVI", "DAPS"),
}


@pytest.mark.slow
@pytest.mark.parametrize("claim", CLAIMS)
@pytest.mark.parametrize("name", methods.ALL)
def test_what_a_method_does_not_claim_it_does_not_hold(name, claim):
    """But for ``UNSAID``: a check that everything passes would prove nothing."""
    if claim in methods.ALL[name].claims or name in UNSAID.get(claim, ()):
        return
    with pytest.raises(AssertionError):
        CLAIMS[claim].check(methods.ALL[name]())


@pytest.mark.parametrize(
    "problem", [{"white": False}, {"white": True}, {"white": False, "flat": True}]
)
def test_the_limit_lies_between_the_oracle_and_a_small_fault(problem):
    """The exact conditional denoiser is below it; samples whose standard deviation is a sixth too
    small are above."""
    post = gaussian_problem(**problem)
    exact = exact_posterior(post)
    run = sample(oracle(post), methods.Unconditional(), n=DRAWS, steps=STEPS, seed=1)
    mean, covariance = moments(run.samples)
    assert gaussian_kl(mean, covariance, exact.mean, exact.covariance) < 0.75 * LIMIT
    assert gaussian_kl(mean, (5 / 6) ** 2 * covariance, exact.mean, exact.covariance) > LIMIT


def test_check_method_refuses_an_unknown_claim_and_finds_a_false_one():
    @dataclass(frozen=True)
    class Boast(methods.Unconditional):
        factor: float = 1.0
        claims: ClassVar[frozenset[str]] = frozenset({"always right"})

    with pytest.raises(
        AssertionError, match="claims 'always right', which no check proves; known: flat likelihood"
    ):
        check_method(Boast(), bed())

    @dataclass(frozen=True)
    class Wrong(methods.Unconditional):
        factor: float = 1.0
        claims: ClassVar[frozenset[str]] = frozenset({WHITE})

    with pytest.raises(AssertionError, match="Wrong: samples lie at KL"):
        check_method(Wrong(), bed())
    # A class claims for its default setting.
    check_method(replace(Wrong(), factor=2.0), bed())
    check_method(Wrong(), bed(), claims=False)
