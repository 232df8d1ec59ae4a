"""Vision transformers as networks: any of timm's, and two that timm has not, called like those of `models`.

`Vision(...)(x)` takes images x [B, C, H, W] and returns `models.Outputs`: logits [B, K], features [B, D] that the head
reads, the last map [B, C, H, W] where a network has one, and the logits of a distillation token's head.

B images of a batch, C channels, H rows, W columns, K classes, N tokens, D embedding dimension. No weights are
downloaded. Taught in notebooks/12_vision_transformers.ipynb.
"""

from __future__ import annotations

import difflib
import inspect
import math
import re

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import InputError, nearest
from .resnet import Outputs, exact

HEAD_INITS = ("timm", "zero")
OURS = {"embed_dim": "width", "num_heads": "heads", "drop_path_rate": "drop_path"}  # timm's words in ours
CONVIT_HEADS = {"convit_tiny": 4, "convit_small": 9, "convit_base": 16}  # timm gives ConViT's width per head


class DropPath(nn.Module):
    """Drops what a residual branch adds, image by image, with probability `rate`; others grow by 1 / (1 - rate)."""

    def __init__(self, rate: float):
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.rate == 0:
            return x
        kept = x.new_empty(len(x), 1, 1).bernoulli_(1 - self.rate)
        return x * kept / (1 - self.rate)


class Attention(nn.Module):
    """Multi-head self-attention of tokens [B, N, D]. With a `reduction` r keys and values come from a square map that
    a convolution has made r times smaller in height and width (PVT)."""

    def __init__(self, dim: int, heads: int, bias: bool, reduction: int, eps: float):
        super().__init__()
        self.heads, self.reduction = heads, reduction
        self.q, self.kv = nn.Linear(dim, dim, bias=bias), nn.Linear(dim, 2 * dim, bias=bias)
        self.proj = nn.Linear(dim, dim)
        if reduction > 1:
            self.shrink, self.norm = nn.Conv2d(dim, dim, reduction, reduction), nn.LayerNorm(dim, eps)

    def forward(self, x: Tensor) -> Tensor:
        source = x if self.reduction == 1 else self.norm(_tokens(self.shrink(_map(x))))
        q, k, v = (t.unflatten(2, (self.heads, -1)).transpose(1, 2)
                   for t in (self.q(x), *self.kv(source).chunk(2, dim=2)))
        return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


def _map(tokens: Tensor) -> Tensor:
    """Tokens [B, N, D] of a square image -> [B, D, H, W]."""
    side = math.isqrt(tokens.shape[1])
    return tokens.transpose(1, 2).unflatten(2, (side, side))


def _tokens(x: Tensor) -> Tensor:
    """A map [B, D, H, W] -> tokens [B, N, D]."""
    return x.flatten(2).transpose(1, 2)


def _mlp(dim: int, hidden: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, dim))


class Block(nn.Module):
    """Pre-norm transformer block: attention, then a perceptron, each added to what it was given."""

    def __init__(self, dim: int, heads: int, ratio: int, drop_path: float, bias: bool = True, reduction: int = 1,
                 eps: float = 1e-6):
        super().__init__()
        self.norm1, self.attention = nn.LayerNorm(dim, eps), Attention(dim, heads, bias, reduction, eps)
        self.norm2, self.mlp = nn.LayerNorm(dim, eps), _mlp(dim, ratio * dim)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop_path(self.attention(self.norm1(x)))
        return x + self.drop_path(self.mlp(self.norm2(x)))


class TokenNet(nn.Module):
    """What our two networks share with timm's: tokens [B, 1 + N, D], of which the head reads the first."""

    head: nn.Linear

    def forward_head(self, tokens: Tensor, pre_logits: bool = False) -> Tensor:
        return tokens[:, 0] if pre_logits else self.head(tokens[:, 0])

    def get_classifier(self) -> nn.Linear:
        return self.head


def _draw(net: nn.Module) -> None:
    """Linear layers, class tokens and learned positions: normal, deviation 0.02, cut off at +-2 (released)."""
    for module in net.modules():
        if isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    for name, parameter in net.named_parameters():
        if name.endswith(("cls_token", "pos_embed")):
            nn.init.trunc_normal_(parameter, std=0.02)


class PyramidStage(nn.Module):
    """Patches of a map, learned positions, blocks: [B, C, H, W] -> tokens [B, N, D]; the last stage has a class token
    before them."""

    def __init__(self, inputs: int, dim: int, patch: int, side: int, last: bool, blocks: list[Block]):
        super().__init__()
        self.patches, self.norm = nn.Conv2d(inputs, dim, patch, patch), nn.LayerNorm(dim, 1e-6)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim)) if last else None
        self.pos_embed = nn.Parameter(torch.zeros(1, side**2 + last, dim))
        self.blocks = nn.Sequential(*blocks)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(_tokens(self.patches(x)))
        if self.cls_token is not None:
            x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], dim=1)
        return self.blocks(x + self.pos_embed)


class PVTTiny(TokenNet):
    """PVT-Tiny (Wang et al., ICCV 2021): four stages, each with fewer and wider tokens."""

    multiple = 32  # pixels of an image's side
    stage_shapes = ((4, 64, 1, 8, 8), (2, 128, 2, 8, 4), (2, 320, 5, 4, 2), (2, 512, 8, 4, 1))
    # patch, dimension, heads, the perceptron's ratio, reduction

    def __init__(self, classes: int, channels: int, size: int, drop_path: float):
        super().__init__()
        rates = torch.linspace(0, drop_path, 8).tolist()
        self.stages, inputs, side = nn.ModuleList(), channels, size
        for stage, (patch, dim, heads, ratio, reduction) in enumerate(self.stage_shapes):
            side //= patch
            blocks = [Block(dim, heads, ratio, rate, reduction=reduction) for rate in rates[2 * stage:2 * stage + 2]]
            self.stages.append(PyramidStage(inputs, dim, patch, side, stage == 3, blocks))
            inputs = dim
        self.norm, self.head = nn.LayerNorm(inputs, 1e-6), nn.Linear(inputs, classes)
        _draw(self)

    def forward_features(self, x: Tensor) -> Tensor:
        for stage in self.stages[:-1]:
            x = _map(stage(x))
        return self.norm(self.stages[-1](x))


class Performer(nn.Module):
    """One-head attention in linear time by random features of the softmax kernel (Choromanski et al. 2021), then a
    perceptron: tokens [B, N, Di] -> [B, N, D]. The residual is on the value's path, because Di is not D."""

    def __init__(self, inputs: int, dim: int = 64, features: int = 32):
        super().__init__()
        self.norm1, self.kqv, self.proj = nn.LayerNorm(inputs), nn.Linear(inputs, 3 * dim), nn.Linear(dim, dim)
        self.norm2, self.mlp = nn.LayerNorm(dim), _mlp(dim, dim)
        self.register_buffer("directions", nn.init.orthogonal_(torch.empty(features, dim)) * features**0.5)  # fixed

    def kernel(self, x: Tensor) -> Tensor:
        """Positive random features [B, N, M] of tokens [B, N, D], in single precision for the exponentials. Their
        products estimate exp(q . k) if directions are as long as normal vectors, sqrt(D); released: sqrt(M)."""
        with torch.autocast(x.device.type, enabled=False):
            x = exact(x)
            directions = self.directions.to(x.dtype)
            return torch.exp(x @ directions.T - x.square().sum(2, keepdim=True) / 2) / len(directions)**0.5

    def forward(self, x: Tensor) -> Tensor:
        k, q, v = self.kqv(self.norm1(x)).chunk(3, dim=2)
        k, q = self.kernel(k), self.kernel(q)
        with torch.autocast(x.device.type, enabled=False):
            mass = q @ k.sum(1).unsqueeze(2)  # [B, N, 1], what a softmax divides by
            attended = q @ (k.transpose(1, 2) @ v.to(k.dtype)) / (mass + 1e-8)
        x = v + self.proj(attended.to(v.dtype))
        return x + self.mlp(self.norm2(x))


def sinusoids(count: int, dim: int) -> Tensor:
    """Fixed positions [1, N, D] of Vaswani et al. (2017): sines in even columns, cosines in odd ones.

    >>> sinusoids(2, 2)[0, 1]
    tensor([0.8415, 0.5403])
    """
    column = torch.arange(dim, dtype=torch.float64)
    angle = torch.arange(count, dtype=torch.float64)[:, None] / 10000 ** (2 * (column // 2) / dim)
    return torch.where(column % 2 == 0, angle.sin(), angle.cos()).float()[None]


class T2TViT7(TokenNet):
    """T2T-ViT-7 (Yuan et al., ICCV 2021): overlapping windows become tokens in three steps, with a performer between
    two of them, then seven blocks. Positions are fixed sinusoids, not learned."""

    multiple = 16

    def __init__(self, classes: int, channels: int, size: int, drop_path: float, dim: int = 256, depth: int = 7):
        super().__init__()
        self.performers = nn.ModuleList([Performer(49 * channels), Performer(9 * 64)])
        self.embed = nn.Linear(9 * 64, dim)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.register_buffer("positions", sinusoids((size // self.multiple)**2 + 1, dim))
        rates = torch.linspace(0, drop_path, depth).tolist()
        self.blocks = nn.Sequential(*(Block(dim, 4, 2, rate, bias=False, eps=1e-5) for rate in rates))
        self.norm, self.head = nn.LayerNorm(dim), nn.Linear(dim, classes)
        _draw(self)

    def forward_features(self, x: Tensor) -> Tensor:
        tokens = F.unfold(x, 7, stride=4, padding=2).transpose(1, 2)
        for performer in self.performers:
            tokens = F.unfold(_map(performer(tokens)), 3, stride=2, padding=1).transpose(1, 2)
        tokens = torch.cat([self.cls_token.expand(len(x), -1, -1), self.embed(tokens)], dim=1)
        return self.norm(self.blocks(tokens + self.positions))


OWN = {"pvt_tiny": PVTTiny, "t2t_vit_7": T2TViT7}


class Vision(nn.Module):
    """A vision transformer, or any network of timm's, that returns `Outputs` in single precision at least.

    Args:
        name: "timm/" and a name of timm, "pvt_tiny" or "t2t_vit_7".
        classes: K.
        channels: of the images, 1 or 3.
        size: pixels of the data's images, in height and in width.
        image_size: pixels that the network sees; 0 = `size`. Other images are resized, bilinearly, antialiased where
            they shrink. The released programs enlarge all images to 224.
        patch_size, width, depth, heads: a patch's side in pixels, embedding dimension, blocks, attention heads; 0 =
            the architecture's own.
        drop_path: probability of dropping the last block's branches; those before have linearly less (paper's networks:
            0.1; 0 unless given, ours).
        head_init: "timm", as timm draws a network; "zero": heads of zeros and tokens of deviation 0.02 (released).
        dist_token: a second token whose head learns from the teacher: the distilled twin of a DeiT or PiT. A distilled
            name without it is timm's own: the logits are the mean of both heads, in training too.

    Returns (forward): `Outputs`. In train mode with a distillation token, `logits` is the class head's and `distilled`
    the token's; in eval mode `logits` is the mean of both (released). Features of a network with two
    tokens are the mean of the two.

    Raises:
        InputError: when the network is made; what cannot be built, and how to mend it.

    >>> Vision("timm/deit_tiny_patch16_224", 62, 1, 16, patch_size=4, width=48, depth=4, heads=3).feature_size
    48
    """

    def __init__(self, name: str, classes: int, channels: int = 3, size: int = 32, image_size: int = 0,
                 patch_size: int = 0, width: int = 0, depth: int = 0, heads: int = 0, drop_path: float = 0.0,
                 head_init: str = "timm", dist_token: bool = False):
        super().__init__()
        _check_choices(drop_path, head_init)
        self.name, self.image_size = name, image_size or size
        shape = dict(patch_size=patch_size, embed_dim=width, depth=depth, num_heads=heads)
        given = {key: value for key, value in shape.items() if value}
        if name.startswith("timm/"):
            known = _known(name.removeprefix("timm/"))
            self.net = _from_timm(_twin(known) if dist_token else known, classes, channels, self.image_size, drop_path,
                                  given)
        else:
            _check_own(name, self.image_size, given, dist_token)
            self.net = OWN[name](classes, channels, self.image_size, drop_path)
        self.dist_token = dist_token
        if head_init == "zero":
            _zero_heads(self.net)
        self.feature_size = self._tried(name, channels)

    def _tried(self, name: str, channels: int) -> int:
        """D, from one image of zeros in eval mode: it draws nothing, and what an image's size forbids is known now."""
        try:
            with torch.no_grad():
                return self.eval()(torch.zeros(1, channels, self.image_size, self.image_size)).features.shape[1]
        except Exception as error:
            raise _unbuildable(name, self.image_size, error) from error
        finally:
            self.train()

    def forward(self, x: Tensor) -> Outputs:
        last = self.net.forward_features(resized(x, self.image_size))
        logits, distilled = self._logits(last)
        found = (logits, self.net.forward_head(last, pre_logits=True), last if self._is_map(last) else None, distilled)
        return Outputs(*(None if value is None else exact(value) for value in found))

    def _logits(self, last: Tensor) -> tuple[Tensor, Tensor | None]:
        if not self.dist_token:
            return self.net.forward_head(last), None
        cls, dist = self.net.head(last[:, 0]), self.net.head_dist(last[:, 1])
        return (cls, dist) if self.training else (combine_heads(cls, dist), None)

    def _is_map(self, last: Tensor) -> bool:
        """Whether features are [B, C, H, W]; some networks of timm's return [B, H, W, C]."""
        return isinstance(last, Tensor) and last.dim() == 4 and last.shape[1] == self.net.num_features


def combine_heads(cls: Tensor, dist: Tensor | None) -> Tensor:
    """The mean of two heads' logits (released transformer programs); without a second head those of the first."""
    return cls if dist is None else (cls + dist) / 2


def resized(x: Tensor, size: int) -> Tensor:
    """Images [B, C, H, W] of `size` pixels, bilinearly; antialiased where they shrink, as torchvision does. Those that
    have the size pass untouched."""
    if x.shape[-2:] == (size, size):
        return x
    return F.interpolate(x, (size, size), mode="bilinear", antialias=max(x.shape[-2:]) > size)


def no_decay(name: str, parameter: Tensor) -> bool:
    """Whether a parameter is left out of weight decay: vectors, biases, tokens and positions (released).

    >>> no_decay("net.blocks.0.norm1.weight", torch.ones(8)), no_decay("net.head.weight", torch.ones(8, 8))
    (True, False)
    """
    return (parameter.dim() <= 1 or name.endswith(".bias") or
            any(part in name for part in ("cls_token", "pos_embed", "dist_token")))


def _zero_heads(net: nn.Module) -> None:
    """The released start: every class as likely as another, and a class token that is not almost zero (timm: 1e-6)."""
    for name, parameter in net.named_parameters():
        if name.endswith(("cls_token", "dist_token")):
            nn.init.trunc_normal_(parameter, std=0.02)
    heads = net.get_classifier()
    for head in heads if isinstance(heads, tuple) else (heads,):
        for parameter in head.parameters():
            nn.init.zeros_(parameter)


def _from_timm(name: str, classes: int, channels: int, image_size: int, drop_path: float, given: dict) -> nn.Module:
    arguments = _convit_width(name, given) | dict(num_classes=classes, in_chans=channels)
    _check_heads(given)
    if name.startswith("pit_"):
        # Released: block i of 12 has drop_path * i / 12. timm goes from 0 to its rate in 11 steps: rate * i / 11.
        drop_path *= 11 / 12
    if drop_path:
        arguments["drop_path_rate"] = drop_path
    net = _created(name, image_size, arguments)
    _silence(net, drop_path)
    _check_taken(name, net, given)
    for module in net.modules():
        if getattr(module, "strict_img_size", False):  # others pad, or their patches overlap
            _check_divides(f"timm/{name}", image_size, max(module.patch_size))
    if name.startswith("pit_"):  # its patches overlap without padding: pixels after the last whole one would be lost
        patches = net.patch_embed.conv
        _check_divides(f"timm/{name}", image_size, patches.kernel_size[0], patches.stride[0])
    return net


def _silence(net: nn.Module, drop_path: float) -> None:
    """Some of timm's networks drop by default, which no recipe says: not here."""
    for module in net.modules():
        if isinstance(module, nn.modules.dropout._DropoutNd):
            module.p = 0.0
        if isinstance(getattr(module, "drop_rate", None), float):  # which some hand to a function of torch
            module.drop_rate = 0.0
        if not drop_path and getattr(module, "drop_prob", None):
            module.drop_prob = 0.0


def _created(name: str, image_size: int, arguments: dict) -> nn.Module:
    """timm's network; of those that take any image without being told its size, one that is not told."""
    import timm
    for told in (dict(img_size=image_size), {}):
        try:
            return timm.create_model(name, pretrained=False, **arguments, **told)
        except Exception as error:
            refused = set(re.findall(r"'(\w+)'", str(error).partition("unexpected keyword argument")[2]))
            if refused - {"img_size"}:
                raise _takes_none(f"timm/{name}", min(refused - {"img_size"})) from error
            if refused and told:
                continue
            raise _unbuildable(f"timm/{name}", image_size, error) from error


def _takes_none(name: str, argument: str) -> InputError:
    word = OURS.get(argument, argument)
    return InputError(f"{name} takes no {word}: leave {word} = 0, or choose a network that takes it, such as "
                      "timm/deit_tiny_patch16_224.")


def _unbuildable(name: str, image_size: int, error: Exception) -> InputError:
    first = (str(error) or type(error).__name__).splitlines()[0].rstrip(".")
    return InputError(f'{name} cannot be built for images of {image_size} x {image_size} pixels and the sizes given '
                      f'("{first}"): change image_size, or leave patch_size, width, depth and heads 0.')


def _known(name: str) -> str:
    """A name that timm has. Others, such as addresses of weights, go no further."""
    import timm
    network, tagged, _ = name.partition(".")
    if timm.is_model(network) and tagged:
        raise InputError(f"timm/{name} names weights, and networks start untrained here: give timm/{network}.")
    if timm.is_model(name):
        return name
    close = difflib.get_close_matches(name, timm.list_models(), n=3)
    raise InputError(f'timm has no network "{name}"; ' +
                     (f'nearest: {", ".join(f"timm/{one}" for one in close)}; ' if close else "") +
                     "timm.list_models() lists all.")


def _twin(name: str) -> str:
    """The same network with a distillation token."""
    import timm
    twins = {twin.replace("_distilled", ""): twin for twin in timm.list_models(["deit_*distilled*", "pit_*distilled*"])}
    if name in twins.values():
        return name
    if name not in twins:
        raise _no_token(f"timm/{name}", twins)
    return twins[name]


def _no_token(name: str, twins) -> InputError:
    return InputError(f"{name} has no distillation token: leave dist_token at its default, or choose one of "
                      f"{', '.join(f'timm/{twin}' for twin in twins)}.")


def _convit_width(name: str, given: dict) -> dict:
    """ConViT's `embed_dim` is one head's: the width is that times the heads."""
    heads = CONVIT_HEADS.get(name)
    if not heads or "embed_dim" not in given:
        return given
    heads = given.get("num_heads", heads)
    _check_heads(given | dict(num_heads=heads))
    return given | dict(embed_dim=given["embed_dim"] // heads)


def _check_heads(given: dict) -> None:
    width, heads = given.get("embed_dim", 0), given.get("num_heads", 1)
    if width % heads:
        raise InputError(f"{heads} heads do not divide a width of {width}: give a width that is a multiple of the "
                         f"heads, for example {-(-width // heads) * heads}.")


def _check_taken(name: str, net: nn.Module, given: dict) -> None:
    """Some constructors of timm's swallow arguments that they do not know."""
    taken = {key for cls in type(net).__mro__ for key in inspect.signature(cls.__init__).parameters}
    for key in given.keys() - taken:
        raise _takes_none(f"timm/{name}", key)


def _check_divides(name: str, image_size: int, patch: int, stride: int = 0) -> None:
    """stride: pixels from one patch to the next; 0: patches that do not overlap."""
    stride = stride or patch
    if image_size < patch or (image_size - patch) % stride:
        fits = patch + max(-(-(image_size - patch) // stride), 0) * stride
        raise InputError(f"Images of {image_size} x {image_size} pixels do not divide into the patches of {name}, "
                         f"{patch} x {patch}" + f" every {stride} pixels" * (stride < patch) + ": give another "
                         f"image_size, for example {fits}, or another patch_size where the network takes one.")


def _check_own(name: str, image_size: int, given: dict, dist_token: bool) -> None:
    if name not in OWN:
        import timm
        raise InputError(nearest("network", name, [*OWN, f"timm/{name}" if timm.is_model(name) else "timm/..."]))
    for key in given:
        raise _takes_none(name, key)
    if dist_token:
        raise _no_token(name, ["deit_tiny_patch16_224"])
    _check_divides(name, image_size, OWN[name].multiple)


def _check_choices(drop_path: float, head_init: str) -> None:
    if not 0 <= drop_path < 1:
        raise InputError(f"drop_path = {drop_path} is not a probability below 1: give 0 or more, for example 0.1.")
    if head_init not in HEAD_INITS:
        raise InputError(nearest("head_init", head_init, HEAD_INITS))
