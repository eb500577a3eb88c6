"""Network files: every kind loads to the same tensors, and a wrong one is refused in one line that names it."""

import io
import json
import pickle
from pathlib import Path

import pytest
import stylizers
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from debias.style_transfer import Stylizer
from debias.style_transfer.compact import Compact
from debias.style_transfer.files import sha256_file
from debias.style_transfer.quality import edge_correlation
from debias.style_transfer.vgg19 import Vgg19
from debias.style_transfer.weights import (
    SHIPPED,
    SHIPPED_SHA256,
    load_fitted,
    load_network,
    new_network,
    read_state,
    save_fitted,
)


@pytest.fixture(scope="module")
def compact():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Compact()


@pytest.fixture(scope="module")
def vgg19():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Vgg19()


@pytest.fixture
def pair(tmp_path, vgg19):
    """The published files: the encoder goes on to relu5_4, in values that take no room on the disk."""
    folder = tmp_path / "adain"
    folder.mkdir()
    beyond = {32: 512, 35: 512, 38: 512, 42: 512, 45: 512, 48: 512, 51: 512}
    later = {f"{position}.weight": torch.zeros(1).expand(width, 512, 3, 3) for position, width in beyond.items()}
    later |= {f"{position}.bias": torch.zeros(1).expand(width) for position, width in beyond.items()}
    torch.save(dict(vgg19.encoder.state_dict()) | later, folder / "vgg_normalised.pth")
    torch.save(vgg19.decoder.state_dict(), folder / "decoder.pth")
    return folder


def same(left, right):
    ours, theirs = left.state_dict(), right.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)


def refused(path, reason):
    """Loading `path` ends in one line that begins with the file's name."""
    with pytest.raises(ValueError, match=reason) as caught:
        load_network(path)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(str(path))


# --- what loads -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", ["compact", "vgg19"])
def test_a_fitted_file_comes_back(tmp_path, architecture, request):
    network = request.getfixturevalue(architecture)
    path = tmp_path / "deep" / "mine.safetensors"
    save_fitted(path, architecture, network, {"settings": json.dumps({"steps": 3})})
    for given in (path, str(path)):
        name, loaded = load_network(given)
        assert name == architecture
        assert same(loaded, network)
    with safe_open(path, "pt") as file:
        assert json.loads(file.metadata()["settings"]) == {"steps": 3}


def test_a_fit_in_half_precision_is_kept_as_float32(tmp_path):
    path = tmp_path / "half.safetensors"
    save_fitted(path, "compact", Compact().bfloat16().to(memory_format=torch.channels_last), {})
    assert {value.dtype for value in read_state(path).values()} == {torch.float32}
    load_fitted(path)


def test_the_published_pair_loads_from_a_folder(pair, vgg19):
    for given in (pair, str(pair)):
        name, loaded = load_network(given)
        assert name == "vgg19"
        assert same(loaded, vgg19)


def test_vgg19_is_the_pair_in_the_cache(pair, vgg19, monkeypatch, tmp_path):
    monkeypatch.setenv("DEBIAS_CACHE", str(tmp_path / "cache"))
    with pytest.raises(ValueError, match=r"cache/vgg19: no vgg_normalised.pth and no decoder.pth"):
        load_network("vgg19")
    (tmp_path / "cache").mkdir()
    pair.rename(tmp_path / "cache" / "vgg19")
    name, loaded = load_network("vgg19")
    assert name == "vgg19"
    assert same(loaded, vgg19)


def test_a_new_network_to_fit(pair):
    network, prefix = new_network("compact", pair / "vgg_normalised.pth")
    assert isinstance(network, Compact)
    assert prefix == ""
    network, prefix = new_network("vgg19", pair / "vgg_normalised.pth")
    assert prefix == "decoder"
    assert torch.equal(network.state_dict()["encoder.29.weight"], read_state(pair / "vgg_normalised.pth")["29.weight"])
    with pytest.raises(ValueError, match=r"decoder.pth: not an encoder for vgg19"):
        new_network("vgg19", pair / "decoder.pth")


def test_the_shipped_network():
    """The file that was fitted, of this very content; it reconstructs, and stylises to finite values."""
    assert sha256_file(SHIPPED) == SHIPPED_SHA256
    assert SHIPPED.stat().st_size <= 6_000_000
    stylizer = Stylizer.load("compact")
    assert stylizer.name == "compact"
    y, x = torch.meshgrid(torch.linspace(-1, 1, 128), torch.linspace(-1, 1, 128), indexing="ij")
    disc, bars = ((x**2 + y**2) < 0.4).float(), ((x * 12).sin() > 0).float()
    content = torch.stack([0.2 + 0.6 * disc, 0.3 + 0.3 * disc + 0.1 * x, 0.5 - 0.2 * y])[None]
    style = torch.stack([0.9 * bars, 0.2 + 0.5 * bars, 0.1 + 0.1 * bars])[None]
    assert edge_correlation(stylizer(content, style, 0.0), content) >= 0.85
    out = stylizer(content, style, 1.0)
    assert out.isfinite().all()
    ways = [(images.mean((2, 3)) - style.mean((2, 3))).abs().mean() for images in (out, content)]
    assert ways[0] < ways[1] / 2  # it takes the style's colours


# --- what is refused ------------------------------------------------------------------------------------------------


def test_a_name_that_is_nothing():
    with pytest.raises(ValueError, match=r"^stylizer 'compcat': not compact, vgg19, a file of fit-stylizer or a"):
        load_network("compcat")


class Payload:
    """What a hostile checkpoint holds: unpickling it makes a file."""

    def __init__(self, canary):
        self.canary = canary

    def __reduce__(self):
        return Path.touch, (self.canary,)


@pytest.mark.parametrize("kind", ["zip", "legacy", "pickle"])
def test_a_hostile_pickle_is_refused_and_not_run(tmp_path, pair, kind):
    canary = tmp_path / "canary"
    state = {"0.weight": Payload(canary)}
    buffer = io.BytesIO()
    if kind == "pickle":
        pickle.dump(state, buffer, protocol=2)  # of a later one torch warns
    else:
        torch.save(state, buffer, _use_new_zipfile_serialization=kind == "zip")
    for path in (tmp_path / "hostile.pth", tmp_path / "hostile.safetensors", pair / "decoder.pth"):
        path.write_bytes(buffer.getvalue())
        with pytest.raises(ValueError, match="not a weights file that can be read safely") as caught:
            load_network(path if path.parent == tmp_path else path.parent)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)
        assert "weights_only" not in str(caught.value)  # torch's advice to switch the safety off
        assert not canary.exists()
    if kind == "pickle":
        pickle.loads(buffer.getvalue())
        assert canary.exists()  # the payload is a real one


@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.99])
def test_a_truncated_file_is_refused(tmp_path, compact, kind, share):
    path = tmp_path / ("cut.safetensors" if kind == "safetensors" else "cut.pth")
    if kind == "safetensors":
        save_fitted(path, "compact", compact, {})
    else:
        torch.save(compact.state_dict(), path, _use_new_zipfile_serialization=kind == "zip")
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    refused(path, "not a weights file that can be read safely")


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("data", [b"<!DOCTYPE html><html><body>Not found</body></html>", b'{"a": 1}', b"\x80\x02" * 40])
def test_what_is_no_weights_file_is_refused(tmp_path, suffix, data):
    path = tmp_path / f"page{suffix}"
    path.write_bytes(data)
    refused(path, "not a weights file that can be read safely")


@pytest.mark.parametrize("content", [[torch.zeros(1)], {"state_dict": {"a": torch.zeros(1)}}, {"epoch": 3}])
def test_what_is_no_state_dict_is_refused(tmp_path, content):
    path = tmp_path / "other.pth"
    torch.save(content, path)
    refused(path, "holds no plain state dict")


def test_a_wrong_architecture_is_refused(tmp_path, compact):
    path = tmp_path / "other.safetensors"
    save_fitted(path, "resnet50", compact, {})
    refused(path, "not a file of fit-stylizer .architecture 'resnet50' in its header")
    save_fitted(path, "vgg19", compact, {})
    refused(path, "tensors do not fit the network")
    save_file(compact.state_dict(), path)
    refused(path, "architecture 'none'")
    save_fitted(path, "compact", Compact((8, 8, 8)), {})
    refused(path, "tensors do not fit the network")
    path = tmp_path / "bare.pth"
    torch.save(compact.state_dict(), path)
    refused(path, "not a file of fit-stylizer")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_not_finite_are_refused(tmp_path, pair, value):
    network = Compact()
    with torch.no_grad():
        network.head.weight[1, 2, 0, 1] = value
    path = tmp_path / "nan.safetensors"
    save_fitted(path, "compact", network, {})
    refused(path, "holds values that are not finite")
    state = read_state(pair / "decoder.pth")
    state["28.bias"][0] = value
    torch.save(state, pair / "decoder.pth")
    with pytest.raises(ValueError, match=r"decoder.pth: holds values that are not finite"):
        load_network(pair)


@pytest.mark.parametrize("where", ["stem.weight", "head.bias"])
def test_finite_weights_that_make_no_image_are_refused(tmp_path, where):
    network = stylizers.network()
    path = tmp_path / "absurd.safetensors"
    save_fitted(path, "compact", network, {})
    assert Stylizer.load(path).origin == str(path)
    state = network.state_dict()
    state[where].view(-1)[0] = 1e30
    save_fitted(path, "compact", network, {})
    with pytest.raises(ValueError, match=r"^\S*/absurd.safetensors: a stylizer whose output is no image; fit it again"):
        Stylizer.load(path)


def test_a_missing_decoder_names_the_folder_and_the_fix(pair):
    (pair / "decoder.pth").unlink()
    refused(pair, "no decoder.pth; put the published AdaIN files there, or fit a decoder with `debias fit-stylizer")


def test_wrong_layouts_in_the_folder_name_the_file(pair):
    (pair / "decoder.pth").write_bytes((pair / "vgg_normalised.pth").read_bytes())
    with pytest.raises(ValueError, match=r"^\S*/decoder.pth: not the layout of the published AdaIN decoder.pth$"):
        load_network(pair)
    torch.save({"0.weight": torch.zeros(1)}, pair / "vgg_normalised.pth")
    with pytest.raises(ValueError, match=r"^\S*/vgg_normalised.pth: neither the layout of vgg_normalised.pth nor"):
        load_network(pair)


def test_another_file_in_place_of_the_shipped_one_is_refused(tmp_path, compact, monkeypatch):
    other = tmp_path / "compact.safetensors"
    save_fitted(other, "compact", compact, {})
    monkeypatch.setattr("debias.style_transfer.weights.SHIPPED", other)
    with pytest.raises(ValueError, match=r"not the file this version shipped; install debias again$"):
        load_network("compact")
