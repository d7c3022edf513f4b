"""A prior that is told what its images show is the mixture of its two denoisers, costs what it
costs, and reads words where it has a text encoder."""

from __future__ import annotations

import pytest
import torch
from cases import mixture, toy
from reference import F64, draw, level
from torch import nn

import posteriori as po
from posteriori import extras
from posteriori.priors import Conditioned, Network, UNet, linearize_at
from posteriori.priors.text import SentenceEncoder

GUIDANCE = (-0.5, 0.0, 0.5, 1.0, 3.0)


def one_of(prior, k):
    """Leaves of a mixture that is its k-th component."""
    return {"weights": torch.eye(len(prior.weights), dtype=F64)[k]}


class Told(nn.Module):
    """A network that is told a label or an embedding, and remembers its batches."""

    def __init__(self):
        super().__init__()
        self.lift, self.batches = nn.Parameter(draw(3, 384, seed=1)), []

    def forward(self, x, label, embedding=None, kind=None):
        self.batches.append(len(x))
        shift = torch.zeros_like(x)
        if embedding is not None:
            shift = shift + (embedding @ self.lift.T / 20).view(-1, 3, 1, 1)
        if kind is not None:
            shift = shift + 0.3 * kind.view(-1, 1, 1, 1)
        return torch.tanh(x + shift)


def told(encoder=None):
    return Network(
        Told().double(),
        shape=(3, 4, 5),
        sigma_data=0.5,
        conditions={"embedding": (384,), "kind": ()},
        text=encoder,
    )


def worded():
    return told(SentenceEncoder(("a nine", "a four"), draw(2, 384, dtype=torch.float32, seed=4)))


@pytest.mark.parametrize("guidance", GUIDANCE)
def test_guidance_mixes_the_denoisers_with_and_without_the_condition(guidance):
    prior, x, sigma = mixture(), draw(5, 4, seed=3), level(0.8)
    found = prior.conditioned(**one_of(prior, 1), guidance=guidance).denoise(x, sigma)
    given, free = prior.at(**one_of(prior, 1)).denoise(x, sigma), prior.denoise(x, sigma)
    torch.testing.assert_close(found, free + guidance * (given - free), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("guidance", GUIDANCE)
def test_one_call_or_two_and_rows_of_their_own_give_the_same(guidance):
    """Both with leaves of the same names (one call) or not (two), and row by row."""
    prior, x, sigma = told(), draw(4, 3, 4, 5, seed=3), level(0.8)
    e = draw(4, 384, seed=6)
    both = prior.conditioned(embedding=e, negative={"embedding": 0 * e[0]}, guidance=guidance)
    free, given = prior.denoise(x, sigma), prior.at(embedding=e).denoise(x, sigma)
    wanted = free + guidance * (given - free)
    torch.testing.assert_close(both.denoise(x, sigma), wanted, rtol=1e-12, atol=1e-12)
    apart = prior.conditioned(embedding=e, guidance=guidance)
    torch.testing.assert_close(apart.denoise(x, sigma), wanted, rtol=1e-12, atol=1e-12)
    row = prior.conditioned(embedding=e[2], guidance=guidance).denoise(x[2:3], sigma)
    torch.testing.assert_close(row, wanted[2:3], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("guidance", "passes"), [(0.0, 1), (1.0, 1), (2.0, 2)])
def test_what_a_run_counts_is_what_the_network_ran(guidance, passes):
    prior = worded()
    A = po.operators.Identity((3, 4, 5))
    y = draw(3, 4, 5, seed=7)
    post = po.Posterior(
        prior.conditioned("a nine", guidance=guidance),
        po.Likelihood(y, A, po.noise.Gaussian(0.3), range=(-1, 1)),
    )
    run = po.sample(post, po.methods.DPS(), n=3, steps=5, seed=0)
    ran = prior.net.batches
    assert ran == [3 * passes] * 5
    assert run.counts["denoiser"] == sum(ran) / 3 == 5 * passes
    assert run.counts["vjp"] == 5 * passes


def test_samples_given_a_component_are_those_of_the_component():
    """Guidance 1 in a closed form: the same trajectories as the component's own prior."""
    prior = mixture()
    made = Conditioned(prior, one_of(prior, 0)).sample(4, seed=3, steps=12)
    wanted = prior.at(**one_of(prior, 0)).sample(4, seed=3, steps=12)
    torch.testing.assert_close(made, wanted, rtol=1e-10, atol=1e-10)


def test_derivatives_by_the_condition_and_by_what_it_is_told_apart_from():
    prior, x, sigma, u = told(), draw(2, 3, 4, 5, seed=3), level(0.8), draw(2, 3, 4, 5, seed=4)
    e, n = draw(384, seed=5), draw(384, seed=6)
    guided = prior.conditioned(embedding=e, negative={"embedding": n}, guidance=2.5)
    assert set(guided.know().leaves()) >= {"embedding", "negative_embedding", "kind"}
    x0, pull = linearize_at(guided, x, sigma, embedding=e, negative_embedding=n)
    torch.testing.assert_close(x0, guided.denoise(x, sigma))
    for name, value in (("embedding", e), ("negative_embedding", n)):
        step, way = 1e-6, draw(384, seed=8)
        ahead, behind = (
            guided.at(**{name: value + sign * step * way}).denoise(x, sigma) for sign in (1, -1)
        )
        slope = ((ahead - behind) * u).sum() / (2 * step)
        torch.testing.assert_close((pull[name](u) * way).sum(), slope, rtol=1e-6, atol=1e-8)
    assert torch.equal(guided.know().adjustable()["negative_embedding"], n)


def test_other_leaves_reach_the_prior():
    prior, x, sigma = told(), draw(2, 3, 4, 5, seed=3), level(0.8)
    lift = draw(3, 384, seed=9)
    guided = prior.conditioned(embedding=draw(384, seed=5), guidance=2.0)
    moved = guided.at(**{"net.lift": lift})
    prior.net.lift.data.copy_(lift)
    torch.testing.assert_close(moved.denoise(x, sigma), guided.denoise(x, sigma))


def test_a_sentence_is_its_embedding_and_the_empty_one_is_no_condition():
    prior, x, sigma = worded(), draw(2, 3, 4, 5, seed=3), level(0.8)
    e = prior.know().text("a nine")["embedding"]
    by_text = prior.conditioned(" a nine ", guidance=2.0)
    torch.testing.assert_close(
        by_text.denoise(x, sigma), prior.conditioned(embedding=e, guidance=2.0).denoise(x, sigma)
    )
    four = prior.know().text("a four")
    torch.testing.assert_close(
        prior.conditioned("a nine", guidance=0.0, negative="a four").denoise(x, sigma),
        prior.at(**four).denoise(x, sigma),
    )
    for nothing in (by_text.at(embedding=0 * e), prior.conditioned("a nine", guidance=0.0)):
        torch.testing.assert_close(nothing.denoise(x, sigma), prior.denoise(x, sigma))


def test_a_class_against_another():
    """As class-conditional networks are told: a whole number, and one that means none."""
    prior, x, sigma = told(), draw(2, 3, 4, 5, seed=3), level(0.8)
    c, none = torch.tensor(3), torch.tensor(0)
    guided = prior.conditioned(kind=c, negative={"kind": none}, guidance=1.5)
    given, free = (prior.at(kind=k).denoise(x, sigma) for k in (c, none))
    torch.testing.assert_close(guided.denoise(x, sigma), free + 1.5 * (given - free))
    assert "kind" not in guided.know().adjustable()


def test_the_sentence_of_a_scan():
    """Metadata, as ContextMRI has it, is one more sentence."""
    said = "Axial T2, brain, 3 T, slice 12"
    encoder = SentenceEncoder((said,), draw(1, 384, dtype=torch.float32, seed=4))
    prior, x, sigma = told(encoder), draw(2, 3, 4, 5, seed=3), level(0.8)
    wanted = prior.at(embedding=encoder.numbers[0]).denoise(x, sigma)
    torch.testing.assert_close(prior.conditioned(said).denoise(x, sigma), wanted)


def test_a_network_told_zeros_is_one_told_nothing():
    torch.manual_seed(0)
    net = UNet(1, (4, 8), (1, 1), 1, embedding=8, condition=6)
    assert net.arguments["condition"] == 6
    assert "condition" not in UNet(1, (4, 8), (1, 1), 1, embedding=8).arguments
    for p in net.parameters():
        nn.init.normal_(p, std=0.3)
    x, c = draw(3, 1, 4, 4, dtype=torch.float32), torch.zeros(3)
    assert torch.equal(net(x, c), net(x, c, embedding=torch.zeros(3, 6)))
    e = draw(3, 6, dtype=torch.float32, seed=2)
    assert not torch.allclose(net(x, c), net(x, c, embedding=e))
    together = net(x, c, embedding=e)[1:2]
    torch.testing.assert_close(together, net(x[1:2], c[1:2], embedding=e[1:2]))


@pytest.mark.parametrize(
    ("said", "how"),
    [
        ("a condition is a text, or leaves", {}),
        ("a condition is a text, or leaves", {"text": "a nine", "embedding": torch.zeros(384)}),
        ("has no text encoder to read 'a nine'", {"text": "a nine"}),
        ("has no leaf 'embeding'; did you mean", {"embeding": torch.zeros(384)}),
        (
            "guidance: expected a finite number, got nan",
            {"kind": torch.tensor(1), "guidance": float("nan")},
        ),
    ],
)
def test_bad_conditions_are_refused(said, how):
    with pytest.raises(ValueError, match=said):
        told().conditioned(**how)


def test_words_that_are_not_kept_need_the_extra(monkeypatch):
    monkeypatch.setattr(extras, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"encoding 'an elephant' needs .*posteriori\[text\]"):
        worded().conditioned("an elephant")


def test_kept_embeddings_survive_a_folder(tmp_path):
    kept = worded().know().text
    kept.save(tmp_path)
    again = SentenceEncoder.load(tmp_path)
    assert again.texts == kept.texts
    torch.testing.assert_close(again.numbers, kept.numbers.half().float())
    with pytest.raises(ValueError, match=r"1 texts have embeddings \(1, 384\)"):
        SentenceEncoder(("a nine",), torch.zeros(2, 384))


def test_the_record_tells_conditions_apart_and_leaves_the_encoder_out():
    prior = worded()
    nine, four = (prior.conditioned(word).record() for word in ("a nine", "a four"))
    assert nine != four
    assert nine != prior.conditioned("a nine", guidance=2.0).record()
    assert "texts" not in str(nine)


def test_a_posterior_under_guidance_one_is_that_of_the_component():
    """DPS of a Gaussian posterior, in a prior that is told which component it is."""
    prior, post = mixture(), toy(d=4)
    known, alone = (
        po.sample(po.Posterior(p, post.given), po.methods.DPS(), n=3, steps=6, seed=1).samples
        for p in (prior.conditioned(**one_of(prior, 2)), prior.at(**one_of(prior, 2)))
    )
    torch.testing.assert_close(known, alone, rtol=1e-10, atol=1e-10)


def test_guidance_along_the_levels_is_linear_in_the_time_of_a_flow():
    """w of the pair at t = sigma / (1 + sigma); two passes wherever it is."""
    prior, x = mixture(), draw(5, 4, seed=3)
    pair = prior.conditioned(**one_of(prior, 1), guidance=(0.5, 4.0))
    assert pair.know().passes == 2
    for t in (0.9, 0.5, 0.1):
        sigma = level(t / (1 - t))
        number = prior.conditioned(**one_of(prior, 1), guidance=4.0 - 3.5 * t)
        torch.testing.assert_close(pair.denoise(x, sigma), number.denoise(x, sigma))
