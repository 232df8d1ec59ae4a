"""PVT-Tiny and T2T-ViT-7, which timm lacks, layer by layer as in the released programs."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .layers import to_float32


class DropPath(nn.Module):
    """Stochastic depth: each image drops a residual branch with probability `rate`; others grow by 1 / (1 - rate)."""

    def __init__(self, rate: float):
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.rate == 0:
            return x
        kept = x.new_empty(len(x), 1, 1).bernoulli_(1 - self.rate)
        return x * kept / (1 - self.rate)


class Attention(nn.Module):
    """Multi-head self-attention of tokens [B, N, D]; a convolution may shrink the map of keys and values (PVT).

    reduction: how many times smaller in height and width.
    """

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
    """Convert tokens [B, N, D] of a square image to a map [B, D, H, W]."""
    side = math.isqrt(tokens.shape[1])
    return tokens.transpose(1, 2).unflatten(2, (side, side))


def _tokens(x: Tensor) -> Tensor:
    """Convert a map [B, D, H, W] to tokens [B, N, D]."""
    return x.flatten(2).transpose(1, 2)


def _mlp(dim: int, hidden: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, dim))


class Block(nn.Module):
    """Pre-norm transformer block: attention, then a perceptron, each with a residual connection."""

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
    """Interface of timm's transformers for our two networks: tokens [B, 1 + N, D]; the head reads the first."""

    head: nn.Linear

    def forward_head(self, tokens: Tensor, pre_logits: bool = False) -> Tensor:
        return tokens[:, 0] if pre_logits else self.head(tokens[:, 0])

    def get_classifier(self) -> nn.Linear:
        return self.head


def _draw(net: nn.Module) -> None:
    """Draw linear layers, class tokens and learned positions: normal, deviation 0.02, cut off at +-2 (released)."""
    for module in net.modules():
        if isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    for name, parameter in net.named_parameters():
        if name.endswith(("cls_token", "pos_embed")):
            nn.init.trunc_normal_(parameter, std=0.02)


class PyramidStage(nn.Module):
    """Patches, learned positions, blocks: [B, C, H, W] -> tokens [B, N, D]; the last stage puts a class token first."""

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
    """One-head attention in linear time by random features of the softmax kernel, then a perceptron.

    Tokens [B, N, Di] -> [B, N, D] (Choromanski et al. 2021). The residual is on the value's path, because Di is not D.
    """

    def __init__(self, inputs: int):
        super().__init__()
        dim, features = 64, 32
        self.norm1, self.kqv, self.proj = nn.LayerNorm(inputs), nn.Linear(inputs, 3 * dim), nn.Linear(dim, dim)
        self.norm2, self.mlp = nn.LayerNorm(dim), _mlp(dim, dim)
        self.register_buffer("directions", nn.init.orthogonal_(torch.empty(features, dim)) * features**0.5)  # fixed

    def kernel(self, x: Tensor) -> Tensor:
        """Compute positive random features [B, N, M] of tokens [B, N, D], in single precision for the exponentials.

        Products estimate exp(q . k) if directions are as long as normal vectors, sqrt(D); released: sqrt(M).
        """
        with torch.autocast(x.device.type, enabled=False):
            x = to_float32(x)
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
    """Compute the fixed positions [1, N, D] of Vaswani et al. (2017): sines in even columns, cosines in odd ones.

    >>> sinusoids(2, 2)[0, 1]
    tensor([0.8415, 0.5403])
    """
    column = torch.arange(dim, dtype=torch.float64)
    angle = torch.arange(count, dtype=torch.float64)[:, None] / 10000 ** (2 * (column // 2) / dim)
    return torch.where(column % 2 == 0, angle.sin(), angle.cos()).float()[None]


class T2TViT7(TokenNet):
    """T2T-ViT-7 (Yuan et al., ICCV 2021): three steps make tokens of overlapping windows, then seven blocks follow.

    A performer stands between consecutive steps. Positions are fixed sinusoids, not learned.
    """

    multiple = 16

    def __init__(self, classes: int, channels: int, size: int, drop_path: float):
        super().__init__()
        dim, depth = 256, 7
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
