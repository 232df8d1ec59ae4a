"""Vision transformers: any of timm's, and two that timm lacks, called like the networks of resnet.py.

`Vision(...)(x)` takes images x [B, C, H, W] and returns `Outputs`: logits [B, K], features [B, D] that the head reads,
the last map [B, C, H, W] where a network has one, and the logits of a distillation token's head.

B images of a batch, C channels, H rows, W columns, K classes, N tokens, D embedding dimension. No weights are
downloaded. Taught in notebooks/12_vision_transformers.ipynb.
"""

from __future__ import annotations

import difflib
import inspect

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import InputError
from ..recipes.recipe import check_model
from .layers import Outputs, to_float32
from .own_transformers import OWN

OURS = {"embed_dim": "width", "num_heads": "heads"}  # timm's words in ours
CONVIT_HEADS = {"convit_tiny": 4, "convit_small": 9, "convit_base": 16}  # timm gives ConViT's width per head


class Vision(nn.Module):
    """A vision transformer, or any network of timm's, that returns `Outputs` in single precision at least.

    Args:
        name: "timm/" and a name of timm, "pvt_tiny" or "t2t_vit_7". size: side of the data's images, pixels.
        image_size: pixels that the network sees; 0 = `size`. Other images are resized, bilinearly, antialiased where
            they shrink. The released programs enlarge all images to 224.
        patch_size, width, depth, heads: a patch's side in pixels, embedding dimension, blocks, attention heads; 0 =
            the architecture's own.
        drop_path: probability of dropping the last block's branches, linearly less for earlier ones (default 0, ours;
            the paper's networks: 0.1).
        head_init: "timm", as timm draws a network; "zero": heads of zeros and tokens of deviation 0.02 (released).
        dist_token: a second token whose head learns from the teacher: the distilled twin of a DeiT or PiT. A distilled
            name without it is timm's own: the logits are the mean of both heads, in training too.

    Returns (forward): `Outputs`. In train mode with a distillation token, `logits` is the class head's and `distilled`
    the token's; in eval mode `logits` is the mean of both (released). With two tokens, features are their mean.

    Raises:
        InputError: a network that cannot be built, with the way to mend it.

    >>> Vision("timm/deit_tiny_patch16_224", 62, 1, 16, patch_size=4, width=48, depth=4, heads=3).feature_size
    48
    """

    def __init__(self, name: str, classes: int, channels: int = 3, size: int = 32, image_size: int = 0,
                 patch_size: int = 0, width: int = 0, depth: int = 0, heads: int = 0, drop_path: float = 0.0,
                 head_init: str = "timm", dist_token: bool = False):
        super().__init__()
        self.name, self.image_size, self.dist_token = name, image_size or size, dist_token
        shape = dict(patch_size=patch_size, embed_dim=width, depth=depth, num_heads=heads)
        given = {key: value for key, value in shape.items() if value}
        try:
            self.net = self._made(classes, channels, drop_path, given)
            self.feature_size = self._tried(channels)
        except InputError:
            raise
        except Exception as error:
            first = (str(error) or type(error).__name__).splitlines()[0].rstrip(".")
            raise InputError(f"{name} cannot be built for images of {self.image_size} x {self.image_size} pixels and "
                             f'the sizes given ("{first}"): change image_size, or leave patch_size, width, depth, '
                             "heads and drop_path 0.") from error
        if head_init == "zero":
            _zero_heads(self.net)

    def _made(self, classes: int, channels: int, drop_path: float, given: dict) -> nn.Module:
        if self.name.startswith("timm/"):
            known = _known(self.name.removeprefix("timm/"))
            return _from_timm(_twin(known) if self.dist_token else known, classes, channels, self.image_size, drop_path,
                              given)
        _check_own(self.name, self.image_size, given, self.dist_token)
        return OWN[self.name](classes, channels, self.image_size, drop_path)

    def _tried(self, channels: int) -> int:
        """Return D from one image of zeros in eval mode, which draws nothing; a forbidden image size shows now."""
        with torch.no_grad():
            found = self.eval()(torch.zeros(1, channels, self.image_size, self.image_size))
        self.train()
        return found.features.shape[1]

    def forward(self, x: Tensor) -> Outputs:
        last = self.net.forward_features(resized(x, self.image_size))
        logits, distilled = self._logits(last)
        found = (logits, self.net.forward_head(last, pre_logits=True), last if self._is_map(last) else None, distilled)
        return Outputs(*(None if value is None else to_float32(value) for value in found))

    def _logits(self, last: Tensor) -> tuple[Tensor, Tensor | None]:
        if not self.dist_token:
            return self.net.forward_head(last), None
        cls, dist = self.net.head(last[:, 0]), self.net.head_dist(last[:, 1])
        return (cls, dist) if self.training else (combine_heads(cls, dist), None)

    def _is_map(self, last: Tensor) -> bool:
        """Return whether features are [B, C, H, W]; some networks of timm's return [B, H, W, C]."""
        return isinstance(last, Tensor) and last.dim() == 4 and last.shape[1] == self.net.num_features


def combine_heads(cls: Tensor, dist: Tensor | None) -> Tensor:
    """Average two heads' logits (released transformer programs); without a second head return the first's."""
    return cls if dist is None else (cls + dist) / 2


def resized(x: Tensor, size: int) -> Tensor:
    """Resize images [B, C, H, W] to `size` pixels if they differ: bilinear, antialiased to shrink as in torchvision."""
    if x.shape[-2:] == (size, size):
        return x
    return F.interpolate(x, (size, size), mode="bilinear", antialias=max(x.shape[-2:]) > size)


def no_decay(name: str, parameter: Tensor) -> bool:
    """Return whether weight decay spares a parameter: vectors, biases, tokens and positions (released).

    >>> no_decay("net.blocks.0.norm1.weight", torch.ones(8)), no_decay("net.head.weight", torch.ones(8, 8))
    (True, False)
    """
    return (parameter.dim() <= 1 or name.endswith(".bias") or
            any(part in name for part in ("cls_token", "pos_embed", "dist_token")))


def _zero_heads(net: nn.Module) -> None:
    """Set the released start: all classes equally likely, and a class token not almost zero (timm: 1e-6)."""
    for name, parameter in net.named_parameters():
        if name.endswith(("cls_token", "dist_token")):
            nn.init.trunc_normal_(parameter, std=0.02)
    heads = net.get_classifier()
    for head in heads if isinstance(heads, tuple) else (heads,):
        for parameter in head.parameters():
            nn.init.zeros_(parameter)


def _from_timm(name: str, classes: int, channels: int, image_size: int, drop_path: float, given: dict) -> nn.Module:
    arguments = _convit_width(name, given) | dict(num_classes=classes, in_chans=channels)
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
        _check_divides(f"timm/{name}", image_size, max(patches.kernel_size), max(patches.stride))
    return net


def _silence(net: nn.Module, drop_path: float) -> None:
    """Turn off the dropout that some of timm's networks have by default, which no recipe asks for."""
    for module in net.modules():
        if isinstance(module, nn.modules.dropout._DropoutNd):
            module.p = 0.0
        if isinstance(getattr(module, "drop_rate", None), float):  # which some hand to a function of torch
            module.drop_rate = 0.0
        if not drop_path and getattr(module, "drop_prob", None):
            module.drop_prob = 0.0


def _created(name: str, image_size: int, arguments: dict) -> nn.Module:
    """Create timm's network; if its constructor refuses an image size, create it without one."""
    import timm
    try:
        return timm.create_model(name, pretrained=False, img_size=image_size, **arguments)
    except TypeError as error:
        if "'img_size'" not in str(error):
            raise
    return timm.create_model(name, pretrained=False, **arguments)


def _takes_none(name: str, argument: str) -> InputError:
    word = OURS.get(argument, argument)
    return InputError(f"{name} takes no {word}: leave {word} = 0, or choose a network that takes it, such as "
                      "timm/deit_tiny_patch16_224.")


def _known(name: str) -> str:
    """Return a name that timm has; refuse others, such as addresses of weights."""
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
    """Return the name of the same network with a distillation token."""
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
    """Divide ConViT's width by its heads, because its `embed_dim` is one head's."""
    if name not in CONVIT_HEADS or "embed_dim" not in given:
        return given
    width, heads = given["embed_dim"], given.get("num_heads", CONVIT_HEADS[name])
    if width % heads:
        raise InputError(f"{heads} heads do not divide a width of {width}: give a width that is a multiple of the "
                         f"heads, for example {-(-width // heads) * heads}.")
    return given | dict(embed_dim=width // heads)


def _check_taken(name: str, net: nn.Module, given: dict) -> None:
    """Refuse arguments that a constructor of timm's would swallow without using them."""
    taken = {key for cls in type(net).__mro__ for key in inspect.signature(cls.__init__).parameters}  # type: ignore[misc]
    for key in given.keys() - taken:
        raise _takes_none(f"timm/{name}", key)


def _check_divides(name: str, image_size: int, patch: int, stride: int = 0) -> None:
    """Refuse images that do not divide into patches; stride: pixels between patches, 0 if they do not overlap."""
    stride = stride or patch
    if image_size < patch or (image_size - patch) % stride:
        fits = patch + max(-(-(image_size - patch) // stride), 0) * stride
        raise InputError(f"Images of {image_size} x {image_size} pixels do not divide into the patches of {name}, "
                         f"{patch} x {patch}" + f" every {stride} pixels" * (stride < patch) + ": give another "
                         f"image_size, for example {fits}, or another patch_size where the network takes one.")


def _check_own(name: str, image_size: int, given: dict, dist_token: bool) -> None:
    check_model(name)
    for key in given:
        raise _takes_none(name, key)
    if dist_token:
        raise _no_token(name, ["deit_tiny_patch16_224"])
    _check_divides(name, image_size, OWN[name].multiple)
