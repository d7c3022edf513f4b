"""EDM networks, and pickles that are read without running what they name."""

from __future__ import annotations

import math
import pickle
import sys
import types

import numpy as np
import pytest
import torch
from console import call
from foreign import fill, wave
from reference import F64
from torch import nn

from posteriori.priors import ContinuousVP, from_pretrained, load, recognise, save_pretrained
from posteriori.priors.architectures.edm import EDMNet
from posteriori.priors.architectures.edm2 import EDM2Net
from posteriori.priors.foreign import edm, edm2, inert

DDPM = {"kind": "song", "features": 16}
NCSN = {
    "kind": "song",
    "features": 32,
    "random_features": True,
    "encoder": "residual",
    "taps": (1, 3, 3, 1),
}
DHARIWAL = {"kind": "dhariwal", "features": 16}


def network(**changes):
    small = {
        "side": 8,
        "channels": 3,
        "out_channels": 3,
        "width": 16,
        "multipliers": (1, 2),
        "blocks": 1,
        "attention": (4,),
        "embedding": 32,
    }
    net = fill(EDMNet(**(small | DDPM | changes)))
    if net.map_noise.random:
        net.map_noise.freqs.copy_(wave(net.map_noise.freqs.shape, 0.3))
    return net


STRUCTURES = [
    DDPM,
    NCSN,
    DHARIWAL,
    DDPM | {"classes": 5, "augmentations": 9, "multipliers": (1, 2, 2), "blocks": 2},
    DDPM | {"encoder": "skip", "decoder": "skip", "attention": (8,), "multipliers": (1, 1, 2)},
    DHARIWAL | {"classes": 4, "attention": (8, 4), "augmentations": 9, "multipliers": (1, 3)},
    DDPM | {"channels": 1, "out_channels": 2, "multipliers": (2,), "attention": ()},
]


@pytest.mark.parametrize("changes", STRUCTURES)
def test_the_network_is_read_from_names_and_shapes(changes):
    net = network(**changes)
    assert edm.arguments(net.state_dict(), "file") | {"ve": False} == net.arguments
    with torch.no_grad():
        out = net(wave((2, net.arguments["channels"], 8, 8), 0.1), torch.tensor([-1.0, 0.5]))
    assert out.shape[1] == net.arguments["out_channels"]
    assert float(out.std()) > 0.01


# What NCSNpp.forward_unet and ADMUNet.forward_unet of deepinv 0.5.0 return for the weights of
# ``fill``: `python benchmarks/originals.py edm`.
WIDE = {"width": 128, "multipliers": (1, 1), "embedding": 512}
ORIGINAL = [
    (DDPM, [-0.09907, 0.011305, 0.082103, -0.027134, -0.032806, -0.036262]),
    (DDPM | {"classes": 5}, [-0.074932, -0.116088, -0.076119, -0.316542, -0.324661, -0.054036]),
    (NCSN, [0.035725, 0.099873, 0.040527, 0.114801, 0.128937, -0.007959]),
    (NCSN | {"classes": 5}, [0.085155, 0.139284, 0.032578, 0.032186, -0.004239, -0.065514]),
    (DHARIWAL, [0.02522, 0.000188, -0.002369, -0.001351, 0.207605, 0.242512]),
    (DHARIWAL | {"classes": 5}, [0.218655, 0.261866, 0.204545, 0.013355, 0.131457, 0.272588]),
]


@pytest.mark.parametrize(("changes", "numbers"), ORIGINAL)
def test_the_network_returns_what_the_original_does(changes, numbers):
    features = 256 if "random_features" in changes else 128
    augmentations = 9 if changes["kind"] == "song" else 0
    net = network(**(WIDE | changes | {"features": features, "augmentations": augmentations}))
    y = torch.tensor([1, 4]) if net.classes else None
    with torch.no_grad():
        out = net(wave((2, 3, 8, 8), 0.5), torch.tensor([-1.0, 0.7]), y)
    found = out.flatten()[:: out.numel() // 6]
    torch.testing.assert_close(found, torch.tensor(numbers), rtol=0, atol=5e-6)


class Node(nn.Module):
    """A module of a class that comes with its file, as NVIDIA's persistence pickles it."""

    def __reduce__(self):
        state = super().__reduce__()[2]
        meta = {
            "type": "class",
            "version": 6,
            "module_src": "raise SystemExit('the source was run')",
            "class_name": self.name,
            "state": state,
        }
        return sys.modules["torch_utils.persistence"]._reconstruct_persistent_obj, (meta,), None


def nested(state, name="Node"):
    """A tree of modules that has this state dictionary."""
    node = Node()
    node.name = name
    inner: dict = {}
    for key, tensor in state.items():
        head, _, rest = key.partition(".")
        if rest:
            inner.setdefault(head, {})[rest] = tensor
        elif head in ("resample_filter", "freqs", "phases", "u"):
            node.register_buffer(head, tensor)
        else:
            node.register_parameter(head, nn.Parameter(tensor))
    for head, below in inner.items():
        node.add_module(head, nested(below))
    return node


@pytest.fixture
def pickled(tmp_path, monkeypatch):
    """Write an EDM pickle: ``net`` in a class around it with these attributes."""

    def write(net, wrapper, *, name="model", torch_save=False, buffers=None, **attributes):
        module = types.ModuleType("torch_utils.persistence")

        def _reconstruct_persistent_obj(meta):
            raise AssertionError("the file was run")

        _reconstruct_persistent_obj.__module__ = "torch_utils.persistence"
        _reconstruct_persistent_obj.__qualname__ = "_reconstruct_persistent_obj"
        module._reconstruct_persistent_obj = _reconstruct_persistent_obj
        outer = nested(
            {f"{name}.{k}": v for k, v in net.state_dict().items()} | (buffers or {}), wrapper
        )
        outer.__dict__.update(attributes)
        file = tmp_path / "network-snapshot.pkl"
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, "torch_utils", types.ModuleType("torch_utils"))
            patch.setitem(sys.modules, "torch_utils.persistence", module)
            content = {"ema": outer, "loss_fn": None, "dataset_kwargs": {"path": "/data"}}
            if torch_save:
                torch.save(content, file)
            else:
                file.write_bytes(pickle.dumps(content))
        return file

    return write


X = wave((2, 3, 8, 8), 0.4)


def raw(net, x, c):
    with torch.no_grad():
        return net(x, torch.full((2,), c))


@pytest.mark.parametrize("torch_save", [False, True])
@pytest.mark.parametrize("changes", [DDPM, NCSN, DHARIWAL])
def test_a_pickle_with_its_class_in_it_is_read_without_running_it(
    pickled, tmp_path, changes, torch_save
):
    net = network(**changes)
    file = pickled(
        net, "EDMPrecond", torch_save=torch_save, sigma_data=0.7, sigma_min=0, sigma_max=math.inf
    )
    found = recognise(file)
    prior = found.prior
    assert (prior.parametrization, prior.sigma_data, prior.sigma_max) == ("edm", 0.7, 80.0)
    assert prior.train_size == (8, 8)
    assert "classes that the file names are not run (torch_utils.persis" in " ".join(found.notes)
    assert found.architecture.endswith("attention at 4")
    sigma, d = 1.3, 0.7
    total = math.sqrt(sigma**2 + d**2)
    want = (d / total) ** 2 * X + sigma * d / total * raw(net, X / total, math.log(sigma) / 4)
    got = prior.denoise(X, torch.tensor(sigma, dtype=F64))
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)
    save_pretrained(prior, tmp_path / "ours")
    assert torch.equal(from_pretrained(tmp_path / "ours").denoise(X, torch.tensor(1.3)), got)


def test_the_preconditionings_of_vp_ve_and_iddpm(pickled):
    """D(x, sigma) of Karras et al. 2022, table 1, written out."""
    net, sigma = network(), 0.9
    at = torch.tensor(sigma, dtype=F64)
    file = pickled(net, "VPPrecond", beta_d=19.9, beta_min=0.1, M=1000, epsilon_t=1e-5)
    prior = load(file)
    assert prior.schedule == ContinuousVP(0.1, 20.0, 999, 1e-5)
    # The root of 19.9 t^2 / 2 + 0.1 t = ln(1 + sigma^2).
    t = (math.sqrt(0.01 + 2 * 19.9 * math.log1p(sigma**2)) - 0.1) / 19.9
    want = X - sigma * raw(net, X / math.sqrt(1 + sigma**2), 999 * t)
    torch.testing.assert_close(prior.denoise(X, at), want, rtol=1e-4, atol=1e-4)

    prior = load(pickled(net, "VEPrecond", sigma_min=0.02, sigma_max=100.0))
    assert (prior.sigma_min, prior.sigma_max) == (0.02, 100.0)
    want = X + sigma * raw(net, X, math.log(0.5 * sigma))
    torch.testing.assert_close(prior.denoise(X, at), want, rtol=1e-5, atol=1e-5)

    # Its table falls from noise to 0, and label j belongs to the entry M - 1 - j.
    u = torch.from_numpy(np.append(np.geomspace(100, 0.01, 200), 0.0))
    prior = load(pickled(net, "iDDPMPrecond", buffers={"u": u}, M=200))
    level = float(u[199 - 60])
    want = X - level * raw(net, X / math.sqrt(1 + level**2), 60.0)
    got = prior.denoise(X, torch.tensor(level, dtype=F64))
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)
    with pytest.raises(ValueError, match="within Precond9; known are EDMPrecond, VPPrecond"):
        load(pickled(net, "Precond9"))


def edm2_network(**changes):
    small = {"side": 8, "channels": 3, "widths": (64, 128), "blocks": 1, "attention": (4,)}
    net = fill(EDM2Net(**(small | {"features": 64, "embedding": 128} | changes)))
    net.emb_fourier.freqs.copy_(wave(net.emb_fourier.freqs.shape, 0.3))
    net.emb_fourier.phases.copy_(wave(net.emb_fourier.phases.shape, 0.6))
    return net


@pytest.mark.parametrize(
    ("changes", "numbers"),
    [
        ({}, [-0.041265, 0.005844, 0.051389, -0.038508, 0.002849, 0.043408]),
        ({"classes": 5}, [0.038437, 0.040097, 0.031579, 0.052448, 0.043352, 0.023249]),
    ],
)
def test_edm2_returns_what_the_original_does(changes, numbers):
    """What UNet of its authors' networks_edm2.py returns for the weights of ``fill``:
    `python benchmarks/originals.py --edm2 FILE`."""
    net = edm2_network(**changes)
    y = torch.tensor([1, 4]) if net.classes else None
    with torch.no_grad():
        out = net(wave((2, 3, 8, 8), 0.5), torch.tensor([-1.0, 0.7]), y)
    found = out.flatten()[:: out.numel() // 6]
    torch.testing.assert_close(found, torch.tensor(numbers), rtol=0, atol=5e-6)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"classes": 4, "blocks": 2, "attention": ()},
        {"widths": (64, 64, 192), "attention": (8, 2), "features": 32, "embedding": 16},
    ],
)
def test_edm2_is_read_from_names_and_shapes(changes):
    net = edm2_network(**changes)
    assert edm2.arguments(net.state_dict(), "file") == net.arguments


def test_a_pickle_of_edm2(pickled, tmp_path):
    """Its network is called unet in a class Precond, beside a part that only training needs."""
    net = edm2_network(classes=5)
    beside = {"logvar_linear.weight": torch.ones(1, 4)}
    file = pickled(net, "Precond", name="unet", buffers=beside, sigma_data=0.4)
    found, sigma, d = recognise(file), 1.3, 0.4
    prior = found.prior
    assert (prior.sigma_data, prior.train_size, prior.multiple) == (0.4, (8, 8), 2)
    assert any("1 tensors outside 'unet.' are left out (logvar" in note for note in found.notes)
    total = math.sqrt(sigma**2 + d**2)
    out = raw(net, X / total, math.log(sigma) / 4)
    want = (d / total) ** 2 * X + sigma * d / total * out
    got = prior.denoise(X, torch.tensor(sigma, dtype=F64))
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)
    two = load(file, label=2).denoise(X, torch.tensor(sigma, dtype=F64))
    with torch.no_grad():
        out = net(X / total, torch.full((2,), math.log(sigma) / 4), torch.tensor([2, 2]))
    want = (d / total) ** 2 * X + sigma * d / total * out
    torch.testing.assert_close(two, want, rtol=1e-5, atol=1e-5)
    save_pretrained(prior, tmp_path / "ours")
    assert torch.equal(from_pretrained(tmp_path / "ours").denoise(X, torch.tensor(1.3)), got)
    torch.save(net.state_dict(), tmp_path / "net.pt")
    with pytest.raises(ValueError, match="an EDM2 network without the class around it"):
        load(tmp_path / "net.pt")
    with pytest.raises(ValueError, match="of 4 channels, which are the codes of an autoencoder"):
        load(pickled(edm2_network(channels=4), "Precond", name="unet", sigma_data=0.5))


def test_a_state_dictionary_is_asked_for_its_constant_and_a_class_can_be_given(
    tmp_path, monkeypatch, capsys
):
    net = network(classes=5)
    torch.save({f"model.{k}": v for k, v in net.state_dict().items()}, tmp_path / "net.pt")
    with pytest.raises(ValueError, match="without the class around it, which has sigma_data"):
        load(tmp_path / "net.pt")
    prior = load(tmp_path / "net.pt", sigma_data=0.5)
    one = load(tmp_path / "net.pt", sigma_data=0.5, label=2)
    c = torch.full((2,), math.log(0.8) / 4)
    total = math.sqrt(0.64 + 0.25)
    with torch.no_grad():
        for p, y in ((prior, None), (one, torch.tensor([2, 2]))):
            want = 0.25 / total**2 * X + 0.4 / total * net(X / total, c, y)
            got = p.denoise(X, torch.tensor(0.8, dtype=F64))
            torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)
    out = tmp_path / "ours"
    words = ["import", tmp_path / "net.pt", "--sigma-data", 0.5, "--label", 2, "--out", out]
    assert call(monkeypatch, *words) == 0
    assert "conditions      y = 2" in capsys.readouterr().out
    again = from_pretrained(out).denoise(X, torch.tensor(0.8, dtype=F64))
    assert torch.equal(again, got)
    with pytest.raises(ValueError, match="an EDM network, does not take heads"):
        load(tmp_path / "net.pt", heads=1)
    state = {k: v for k, v in net.state_dict().items() if "enc.8x8_conv" not in k}
    torch.save(state, tmp_path / "net.pt")
    with pytest.raises(ValueError, match="these are not all its weights"):
        load(tmp_path / "net.pt", sigma_data=0.5)


class Payload:
    """Leaves a trace when it is unpickled."""

    def __init__(self, *call):
        self.call = call

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("write", ["pickle", "torch", "old torch"])
def test_what_a_pickle_asks_for_is_not_run_and_is_named(tmp_path, write):
    file, trace = tmp_path / "net.pkl", tmp_path / "trace"
    payload = Payload(open, (str(trace), "w"))
    if write == "pickle":
        file.write_bytes(pickle.dumps({"ema": payload}))
    else:
        torch.save({"ema": payload}, file, _use_new_zipfile_serialization=write == "torch")
    with pytest.raises(ValueError, match=r"refused.* (io|_io)\.open"):
        load(file)
    assert not trace.exists()


@pytest.mark.parametrize(
    ("content", "refused"),
    [
        (b'cbuiltins\nexec\n(S\'open("trace", "w")\'\ntR.', False),
        (
            b"cbuiltins\ngetattr\n(cbuiltins\n__import__\n(S'os'\ntRS'system'\ntR"
            b"(S'touch trace'\ntR.",
            False,
        ),
        (b"\x80\x02ctorch._utils\n_rebuild_parameter\n}X\x05\x00\x00\x00_makeK\x01s\x86b.", True),
        (b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\nK\x01K\x02K\x03\x87R.", True),
        (b"\x80\x02ctorch.storage\n_load_from_bytes\nK\x01\x85R.", True),
        (b"\x80\x02K\x01Q.", True),
    ],
)
def test_the_reader_makes_shells_of_everything_but_tensors(tmp_path, monkeypatch, content, refused):
    """exec, getattr(__import__("os"), "system"), a change of the reader's own function, tensors and
    storages of something else, a reference outside the file."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.pkl").write_bytes(content)
    if refused:
        with pytest.raises(ValueError, match="no pickle of a network"):
            inert.read_inert(tmp_path / "net.pkl")
    else:
        found, names = inert.read_inert(tmp_path / "net.pkl")
        assert isinstance(found, inert.Shell)
        assert names[0].startswith("builtins.")
    assert not (tmp_path / "trace").exists()
    assert inert._MAKERS["torch._utils", "_rebuild_parameter"](1) == 1


def test_plain_weights_beside_an_object_of_some_class_are_read(tmp_path):
    """A checkpoint whose settings are objects: its weights are what counts."""
    content = {"state_dict": network().state_dict(), "hyper_parameters": types.SimpleNamespace(a=1)}
    torch.save(content, tmp_path / "net.ckpt")
    found = recognise_with_constant(tmp_path / "net.ckpt")
    assert "types.SimpleNamespace" in found.notes[0]
    for name, tensor in network().state_dict().items():
        assert torch.equal(found.prior.net.state_dict()[name], tensor)


def recognise_with_constant(file):
    from posteriori.priors.foreign.found import Stated

    return recognise(file, Stated(sigma_data=0.5))
