"""Vision transformers: sizes of the released networks, outputs, resizing, drop path, refusals."""

import json
import math
from pathlib import Path

import pytest
import torch
import torchvision.transforms.v2.functional as vision
from torch import nn

from spacedkd_lib.errors import InputError
from spacedkd_lib.models.layers import macs, parameters
from spacedkd_lib.models.own_transformers import Attention, DropPath, Performer, sinusoids
from spacedkd_lib.models.resnet import ResNet
from spacedkd_lib.models.transformers import Vision, no_decay

FIXTURE = json.loads((Path(__file__).parent / "fixtures/models.json").read_text())["timm_100_classes_224"]
OWN = {"pvt_tiny": 12767588, "t2t_vit_7": 4024394}
DEIT = "timm/deit_tiny_patch16_224"
TINY = dict(patch_size=4, width=48, depth=4, heads=3)


def tiny(classes=5, **changes):
    torch.manual_seed(0)
    return Vision(DEIT, **dict(classes=classes, channels=1, size=16) | TINY | changes)


@pytest.fixture(scope="module")
def images():
    return torch.randn(2, 1, 16, 16, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", FIXTURE)
def test_sizes_of_timm_networks_are_the_released_ones(name):
    assert parameters(Vision(f"timm/{name}", 100, size=224)) == FIXTURE[name]


@pytest.mark.parametrize("name", OWN)
def test_sizes_of_our_networks_are_the_released_ones(name):
    net = Vision(name, 100, size=224)
    assert parameters(net) == OWN[name]
    fixed = sum(buffer.numel() for buffer in net.buffers())
    assert fixed == (4078922 - 4024394 if name == "t2t_vit_7" else 0)


@pytest.mark.parametrize("name, size, channels, shape", [
    ("timm/pit_ti_224", 32, 3, None), ("timm/pvt_v2_b0", 32, 3, (256, 1, 1)), ("timm/convit_tiny", 32, 3, None),
    ("timm/coat_tiny", 64, 3, None), ("timm/test_resnet", 64, 1, (96, 2, 2)),
    ("timm/swin_tiny_patch4_window7_224", 32, 3, None),
    ("pvt_tiny", 32, 1, None), ("pvt_tiny", 64, 3, None), ("t2t_vit_7", 32, 3, None), ("t2t_vit_7", 64, 1, None)])
def test_outputs(name, size, channels, shape):
    net = Vision(name, 7, channels, size, drop_path=0.1)
    assert net.training
    out = net(torch.randn(2, channels, size, size).contiguous(memory_format=torch.channels_last))
    assert out.logits.shape == (2, 7) and out.features.shape == (2, net.feature_size) and out.distilled is None
    assert (out.map if shape is None else out.map.shape) == (shape and (2, *shape))


def test_heads_of_our_networks():
    pvt, t2t = Vision("pvt_tiny", 5, 1, 32).net, Vision("t2t_vit_7", 5, 1, 32).net
    assert [block.attention.heads for stage in pvt.stages for block in stage.blocks] == [1, 1, 2, 2, 5, 5, 8, 8]
    assert [block.attention.heads for block in t2t.blocks] == [4] * 7


def test_a_tiny_network_and_precision(images):
    net = tiny(62)
    assert net.feature_size == 48 and len(net.net.blocks) == 4 and net.net.blocks[0].attn.num_heads == 3
    assert ResNet("resnet8", 10, width=4).feature_size == 16
    for network in (net, tiny(dist_token=True), Vision("t2t_vit_7", 5, 1, 16), Vision("timm/test_resnet", 5, 1)):
        with torch.autocast("cpu", torch.bfloat16):
            out = network(images)
        assert {value.dtype for value in out if value is not None} == {torch.float32}
    assert net.double()(images.double()).logits.dtype == torch.float64


def test_convit_takes_the_width_of_all_heads():
    net = Vision("timm/convit_tiny", 5, 1, 16, **TINY)
    assert net.feature_size == 48 and net.net.blocks[0].attn.num_heads == 3
    with pytest.raises(InputError, match="4 heads do not divide a width of 50"):
        Vision("timm/convit_tiny", 5, 1, 16, width=50)


def test_two_heads(images):
    net = tiny(dist_token=True)
    trained = net(images)
    expected = (trained.logits + trained.distilled) / 2
    assert not torch.allclose(trained.logits, trained.distilled)
    out = net.eval()(images)
    assert out.distilled is None
    torch.testing.assert_close(out.logits, expected)
    tokens = net.net.forward_features(images)
    torch.testing.assert_close(trained.features, tokens[:, :2].mean(1))
    torch.testing.assert_close(net.net.eval()(images), expected)  # timm's own


def test_a_distilled_name_and_pit():
    by_twin = Vision("timm/pit_ti_224", 5, dist_token=True)
    assert by_twin(torch.randn(2, 3, 32, 32)).distilled.shape == (2, 5)
    x = torch.randn(2, 1, 16, 16)
    name = "timm/deit_tiny_distilled_patch16_224"
    named, plain = (Vision(name, 5, 1, 16, **TINY, dist_token=token) for token in (True, False))
    assert named(x).distilled.shape == (2, 5)
    out = plain(x)
    assert out.distilled is None
    torch.testing.assert_close(out.logits, plain.eval()(x).logits)


@pytest.mark.parametrize("make", [lambda **init: tiny(dist_token=True, **init),
                                  lambda **init: Vision("t2t_vit_7", 5, 1, 32, **init),
                                  lambda **init: Vision("timm/test_resnet", 5, 1, 32, **init)])
def test_zero_heads_give_uniform_predictions(make):
    net = make(head_init="zero")
    size = net.image_size
    out = net(torch.randn(2, 1, size, size))
    assert torch.equal(out.logits, torch.zeros(2, 5)) and (out.distilled is None or not out.distilled.any())
    assert make()(torch.randn(2, 1, size, size)).logits.abs().max() > 0


def test_class_tokens_are_as_released():
    deviations = {init: Vision(DEIT, 5, head_init=init).net.cls_token.std().item() for init in ("timm", "zero")}
    assert deviations["timm"] < 1e-5
    assert deviations["zero"] == pytest.approx(0.02, rel=0.2)  # 192 values


@pytest.mark.parametrize("name", OWN)
def test_our_networks_are_drawn_as_released(name):
    torch.manual_seed(0)
    net = Vision(name, 100, size=64).net
    drawn = [m.weight for m in net.modules() if isinstance(m, nn.Linear)]
    drawn += [p for key, p in net.named_parameters() if key.endswith(("cls_token", "pos_embed"))]
    assert [p.std().item() for p in drawn] == pytest.approx([0.02] * len(drawn), rel=0.15)
    assert not any(m.bias.any() for m in net.modules() if isinstance(m, nn.Linear) and m.bias is not None)


@pytest.mark.parametrize("make, size", [
    (lambda: tiny(dist_token=True), 16), (lambda: Vision("pvt_tiny", 5, 1, 64), 64),
    (lambda: Vision("t2t_vit_7", 5, 1, 32), 32), (lambda: Vision("timm/convit_tiny", 5, 1, 32), 32)])
def test_gradients_reach_every_parameter(make, size):
    net = make()
    out = net(torch.randn(3, 1, size, size))
    loss = sum(logits.square().sum() for logits in (out.logits, out.distilled) if logits is not None)
    loss.backward()
    without = [name for name, p in net.named_parameters() if p.grad is None or not p.grad.any()]
    assert without == []


@pytest.mark.parametrize("given, seen", [(32, 64), (64, 32), (48, 32)])
def test_images_are_resized_as_by_torchvision(given, seen):
    net = Vision("t2t_vit_7", 5, 1, given, image_size=seen).eval()
    x = torch.rand(2, 1, given, given)
    there = vision.resize(x, [seen, seen], antialias=True)
    torch.testing.assert_close(net(x).logits, net(there).logits, rtol=0, atol=1e-5)
    if given > seen:  # or the test could not tell
        assert not torch.allclose(net(x).logits, net(vision.resize(x, [seen, seen], antialias=False)).logits, atol=1e-5)


def rates(net, kind):
    """Of every block's drop path, as timm or we call its probability."""
    return [getattr(m, "drop_prob", getattr(m, "rate", None)) for name, m in net.named_modules()
            if type(m).__name__ == kind and not name.endswith("drop_path2")]


def test_drop_path_follows_the_released_rules():
    pit = rates(Vision("timm/pit_ti_224", 5, drop_path=0.1), "DropPath")  # timm has none where the rate is zero
    assert pit == pytest.approx([0.1 * i / 12 for i in range(1, 12)])
    assert rates(tiny(drop_path=0.3), "DropPath") == pytest.approx([0.1, 0.2, 0.3])
    assert rates(Vision("pvt_tiny", 5, drop_path=0.7), "DropPath") == pytest.approx([0.1 * i for i in range(8)])
    assert rates(Vision("t2t_vit_7", 5, drop_path=0.6), "DropPath") == pytest.approx([0.1 * i for i in range(7)])


def test_drop_path_drops_whole_images_and_keeps_the_mean():
    torch.manual_seed(0)
    layer, x = DropPath(0.25), torch.ones(4000, 2, 3)
    y = layer(x)
    assert y.unique().tolist() == pytest.approx([0, 4 / 3])
    assert (y == y[:, :1, :1]).all() and y.mean().item() == pytest.approx(1, abs=0.04)  # 4 standard errors
    assert torch.equal(layer.eval()(x), x)


def test_attention_is_a_softmax_over_all_tokens():
    torch.manual_seed(0)
    x = torch.randn(2, 9, 8)
    layer = Attention(8, heads=2, bias=True, reduction=1, eps=1e-6)
    q, k, v = layer.q(x), *layer.kv(x).split(8, dim=2)
    heads = [torch.softmax(q[..., s] @ k[..., s].mT / 2, dim=2) @ v[..., s] for s in (slice(0, 4), slice(4, 8))]
    torch.testing.assert_close(layer(x), layer.proj(torch.cat(heads, dim=2)))


def test_attention_with_a_reduction_asks_a_smaller_map():
    torch.manual_seed(0)
    x = torch.randn(1, 16, 8)
    layer = Attention(8, heads=1, bias=True, reduction=2, eps=1e-6)
    small = [layer.shrink.bias + sum(layer.shrink.weight[:, :, r, c] @ x[0, 4 * (i + r) + j + c]
                                     for r in (0, 1) for c in (0, 1)) for i in (0, 2) for j in (0, 2)]
    k, v = layer.kv(layer.norm(torch.stack(small))).split(8, dim=1)
    expected = layer.proj(torch.softmax(layer.q(x[0]) @ k.T / math.sqrt(8), dim=1) @ v)
    torch.testing.assert_close(layer(x)[0], expected, rtol=1e-4, atol=1e-5)


def test_a_performer_is_attention_by_random_features():
    torch.manual_seed(0)
    layer, x = Performer(147), torch.randn(2, 10, 147)
    k, q, v = layer.kqv(layer.norm1(x)).split(64, dim=2)
    weights = torch.stack([layer.kernel(q[:, i:i + 1]).mul(layer.kernel(k)).sum(2) for i in range(10)], dim=1)
    y = v + layer.proj(weights / (weights.sum(2, keepdim=True) + 1e-8) @ v)
    torch.testing.assert_close(layer(x), y + layer.mlp(layer.norm2(y)), rtol=1e-4, atol=1e-5)
    w = layer.directions
    torch.testing.assert_close(w @ w.T, 32 * torch.eye(32), rtol=0, atol=1e-4)  # orthogonal, length sqrt(32)
    z = torch.randn(1, 1, 64)
    assert layer.kernel(z)[0, 0, 3].item() == pytest.approx(math.exp(w[3] @ z[0, 0] - z.norm()**2 / 2) / 32**0.5)
    assert "directions" in dict(layer.named_buffers()) and "directions" in layer.state_dict()


def test_positions():
    table = sinusoids(5, 8)
    for position in range(5):
        for i in range(4):
            angle = position / 10000 ** (2 * i / 8)
            assert table[0, position, 2 * i].item() == pytest.approx(math.sin(angle), abs=1e-7)
            assert table[0, position, 2 * i + 1].item() == pytest.approx(math.cos(angle), abs=1e-7)
    net = Vision("t2t_vit_7", 5, size=224).net
    assert net.positions.shape == (1, 197, 256) and not net.positions.requires_grad
    stages = Vision("pvt_tiny", 5, size=64).net.stages
    assert [stage.cls_token is None for stage in stages] == [True, True, True, False]
    assert [stage.pos_embed.shape[1] for stage in stages] == [256, 64, 16, 4 + 1]


def test_which_parameters_have_no_weight_decay():
    decayed = {name for name, p in tiny(dist_token=True).named_parameters() if not no_decay(name, p)}
    layers = ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
    assert decayed == {f"net.{name}.weight" for name in (
        "patch_embed.proj", "head", "head_dist", *(f"blocks.{b}.{layer}" for b in range(4) for layer in layers))}
    ours = {name for name, p in Vision("pvt_tiny", 5).named_parameters() if no_decay(name, p) and p.dim() > 1}
    assert ours == {"net.stages.3.cls_token", *(f"net.stages.{s}.pos_embed" for s in range(4))}
    assert no_decay("scale.bias", nn.Parameter(torch.ones(2, 2)))


def test_macs_of_a_network_whose_token_goes_on_beside_its_map():
    assert macs(Vision("timm/pit_ti_224", 5, size=32), 3, 32) > 1e6  # without a graph torch's counter fails here


def test_macs_count_attention():
    n, d, patches = 17, 48, 16
    block = n * 12 * d * d + 2 * n * n * d
    assert macs(tiny(62), 1, 16) == patches * 16 * d + 4 * block + d * 62
    layer = Attention(8, heads=2, bias=True, reduction=2, eps=1e-6)
    q, shrink, kv, products, proj = 16 * 64, 16 * 64, 4 * 128, 2 * 16 * 4 * 8, 16 * 64
    assert macs(layer, 1, 4, forward=lambda x: layer(torch.zeros(1, 16, 8))) == q + shrink + kv + products + proj


@pytest.mark.parametrize("changes, sentence", [
    (dict(name="timm/deit_tiny_patch16_225"), 'no network "deit_tiny_patch16_225"; nearest: timm/deit_tiny_patch16_224'),
    (dict(name="timm/resnet18.a1_in1k"), "timm/resnet18.a1_in1k names weights, and networks start untrained here: give "
                                         "timm/resnet18."),
    (dict(name="timm/hf-hub:someone/something"), 'timm has no network "hf-hub:someone/something"; '),
    (dict(name="pvt_tyni"), '"pvt_tyni" is not a model; did you mean "pvt_tiny"?'),
    (dict(name="deit_tiny_patch16_224"), 'a network of timm is written "timm/deit_tiny_patch16_224".'),
    (dict(name=DEIT, size=30), f"Images of 30 x 30 pixels do not divide into the patches of {DEIT}, 16 x 16: give "
                               "another image_size, for example 32, or another patch_size where"),
    (dict(name="timm/pit_ti_224", size=30), "30 x 30 pixels do not divide into the patches of timm/pit_ti_224, 16 x 16 "
                                            "every 8 pixels: give another image_size, for example 32"),
    (dict(name="pvt_tiny", size=48), "do not divide into the patches of pvt_tiny, 32 x 32"),
    (dict(name="timm/resnet18", dist_token=True), "timm/resnet18 has no distillation token: leave dist_token at its "
                                                  "default, or choose one of timm/deit_"),
    (dict(name="pvt_tiny", dist_token=True), "pvt_tiny has no distillation token"),
    (dict(name="pvt_tiny", patch_size=2), "pvt_tiny takes no patch_size: leave patch_size = 0, or choose"),
    (dict(name="timm/resnet18", width=64), "argument 'embed_dim'\"): change image_size, or leave patch_size, width, depth"),
    (dict(name="timm/caformer_s18", heads=2), "timm/caformer_s18 takes no heads"),
    (dict(name="timm/vgg11", drop_path=0.1), "argument 'drop_path_rate'\"): change image_size, or leave"),
    (dict(name=DEIT, width=50), 'the sizes given ("dim should be divisible by num_heads")'),
    (dict(name="timm/pit_ti_224", size=8), "the patches of timm/pit_ti_224, 16 x 16 every 8 pixels: give another image_size, "
                                           "for example 16,"),
    (dict(name="timm/convnext_atto", size=8), "timm/convnext_atto cannot be built for images of 8 x 8 pixels and the "
                                              'sizes given ("Calculated padded input size per channel: (1 x 1).')])
def test_refusals(changes, sentence):
    with pytest.raises(InputError) as refused:
        Vision(**dict(classes=5) | changes)
    text = str(refused.value)
    assert sentence in text and "\n" not in text and len(text) < 400
