"""Corruptions against the reference formulas, PIL and scipy; attacks against closed forms and foolbox."""

import io

import numpy as np
import pytest
import scipy.ndimage
import torch
from matplotlib.colors import hsv_to_rgb, rgb_to_hsv
from PIL import Image
from test_batches import from_pil, to_pil

from spacedkd_lib.analysis import attacks, corruptions
from spacedkd_lib.analysis.attacks import ATTACKS, fgsm, pgd
from spacedkd_lib.analysis.corruptions import CORRUPTIONS, corrupt
from spacedkd_lib.analysis.robustness import predict, robust_scores
from spacedkd_lib.data.batches import channel_statistics, generator, normalised
from spacedkd_lib.errors import InputError
from spacedkd_lib.models.layers import Outputs
from spacedkd_lib.models.resnet import MultiExitResNet, ResNet
from spacedkd_lib.models.scoring import scores

SHAPES = [(3, 32, 32), (1, 16, 16), (3, 24, 40), (1, 8, 8), (1, 36, 36)]  # 36 to 32: box edges on pixel centres
MADE_WITH = {  # make_cifar_c.py's parameters at severities 1 to 5
    "gaussian_noise": (0.04, 0.06, 0.08, 0.09, 0.10), "shot_noise": (500, 250, 100, 75, 50),
    "impulse_noise": (0.01, 0.02, 0.03, 0.05, 0.07), "gaussian_blur": (0.4, 0.6, 0.7, 0.8, 1),
    "brightness": (0.05, 0.1, 0.15, 0.2, 0.3), "contrast": (0.75, 0.5, 0.4, 0.3, 0.15),
    "pixelate": (0.95, 0.9, 0.85, 0.75, 0.65), "jpeg_compression": (80, 65, 58, 50, 40)}


def pictures(count, shape, seed=0):
    """Random pictures with the 1/f spectrum of natural ones; the first is grey, the second black."""
    height, width = shape[1:]
    spectrum = torch.fft.rfft2(torch.randn(count, *shape, generator=generator(seed, "pictures")))
    frequency = torch.fft.fftfreq(height)[:, None].hypot(torch.fft.rfftfreq(width))
    waves = torch.fft.irfft2(spectrum / frequency.clamp(min=1 / height), s=(height, width))
    images = (128 + 60 * waves / waves.std()).clamp(0, 255).to(torch.uint8)
    images[0], images[1] = 77, 0
    return images


def truncated(values):
    """The reference's np.uint8 of pixels in [0, 255]; what rounding alone put below a level keeps it."""
    return torch.from_numpy((np.clip(values, 0, 255) + 1e-6).astype(np.uint8))


# The reference, written with other libraries: float64 pixels in [0, 1], the parameter and the draws -> [0, 255]

def noisy(name, x, c, drawn):
    shape = x.shape
    if name == "gaussian_noise":
        return (x + c * torch.randn(shape, generator=drawn, dtype=torch.float64).numpy()) * 255
    if name == "shot_noise":
        return torch.poisson(torch.from_numpy(x) * c, generator=drawn).numpy() / c * 255
    hit, salt = torch.rand(2, *shape, generator=drawn, dtype=torch.float64).numpy()
    return np.where(hit <= c, np.where(salt <= 0.5, 255, 0), x * 255)


def still(name, x, c):
    if name == "gaussian_blur":
        sigma = c * max(1, x.shape[2] / 32)
        return scipy.ndimage.gaussian_filter(x, (0, 0, sigma, sigma), mode="nearest", truncate=4) * 255
    if name == "contrast":
        means = x.mean(axis=(2, 3), keepdims=True)
        return ((x - means) * c + means) * 255
    hsv = rgb_to_hsv(np.broadcast_to(x, (len(x), 3, *x.shape[2:])).transpose(0, 2, 3, 1))
    hsv[..., 2] = np.clip(hsv[..., 2] + c, 0, 1)
    return hsv_to_rgb(hsv).transpose(0, 3, 1, 2)[:, :x.shape[1]] * 255


def with_pil(name, image, c):
    picture = to_pil(image)
    if name == "pixelate":
        small = picture.resize((int(picture.width * c), int(picture.height * c)), Image.BOX)
        return from_pil(small.resize(picture.size, Image.BOX))
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=c)
    return from_pil(Image.open(file))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", CORRUPTIONS)
def test_pixels_are_the_references(name, shape):
    images = pictures(6, shape)
    x, before = images.double().numpy() / 255, images.clone()
    for severity, c in enumerate(MADE_WITH[name], start=1):
        if name.endswith("noise"):
            expected = truncated(noisy(name, x, c, generator(3, "corruption", name, severity)))
        elif name in ("pixelate", "jpeg_compression"):
            expected = torch.stack([with_pil(name, image, c) for image in images])
        else:
            expected = truncated(still(name, x, c))
        assert torch.equal(corrupt(images, name, severity, seed=3), expected)
    assert torch.equal(images, before)


def test_draws_come_from_the_seed_alone(monkeypatch):
    images, state = pictures(8, (3, 16, 16)), torch.get_rng_state()
    for name in ("gaussian_noise", "shot_noise", "impulse_noise"):
        first = corrupt(images, name, 2, seed=1)
        assert torch.equal(first, corrupt(images, name, 2, seed=1))
        assert not torch.equal(first, corrupt(images, name, 2, seed=2))
    assert torch.equal(state, torch.get_rng_state())
    same = torch.cat([images[:4]] * 2)
    monkeypatch.setattr(corruptions, "AT_ONCE", 4)  # the next block has noise of its own
    assert not torch.equal(*corrupt(same, "gaussian_noise", 2, seed=1).split(4))


# Attacks

class Linear(torch.nn.Module):
    """Two classes, logits (0, w . pixels): the sign of the gradient is w's or its opposite, whatever the pixels."""

    def __init__(self, w):
        super().__init__()
        self.w = torch.nn.Parameter(w)

    def forward(self, x):
        score = (x * self.w).flatten(1).sum(1)
        return Outputs(torch.stack([0 * score, score], 1), x.flatten(1))


PLAIN = ((0.0,), (1.0,))


def a_network(channels=3, classes=5, seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = ResNet("resnet8", classes, channels, width=4)
        for layer in net.modules():  # logits that differ between images: the statistics of some pictures
            if isinstance(layer, torch.nn.BatchNorm2d):
                layer.momentum = None
        images = pictures(64, (channels, 16, 16), seed)
        net.train()(normalised(images, channel_statistics(images)))
    return net


@pytest.fixture(scope="module")
def task():
    """A network, images that it classifies as their labels say, and their statistics."""
    net, images = a_network(), pictures(24, (3, 16, 16), seed=1)
    statistics = channel_statistics(images)
    return net, images, predict(net, images, statistics).argmax(1), statistics


def losses(net, x, labels, statistics):
    logits = predict(net, x, statistics)
    return torch.nn.functional.cross_entropy(logits, labels, reduction="none"), logits.argmax(1) != labels


@pytest.mark.parametrize("name", ATTACKS)
def test_a_linear_network_is_attacked_in_closed_form(name):
    net = Linear(torch.randn(1, 8, 8, generator=generator(0, "w")))
    images, labels = pictures(6, (1, 8, 8)), torch.tensor([0, 1] * 3)
    clean = images / 255
    sign = torch.sign(net.w.detach()) * (1 - 2 * labels)[:, None, None, None]  # up for label 0, down for label 1
    expected = (clean + 6 / 255 * sign).clamp(0, 1)
    found = ATTACKS[name](net, images, labels, PLAIN, radius=6)
    assert found.dtype == torch.float32 and torch.allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("name", ATTACKS)
@pytest.mark.parametrize("radius", (0, 0.5, 8, 60))
def test_adversarial_pixels_stay_in_the_ball_and_the_range(task, name, radius):
    net, images, labels, statistics = task
    found = ATTACKS[name](net, images, labels, statistics, radius)
    assert (found - images / 255).abs().max() <= radius / 255 + 1e-6
    assert 0 <= found.min() and found.max() <= 1
    assert radius or torch.allclose(found, images / 255)


def test_pgd_is_at_least_as_strong_as_fgsm_and_as_fewer_restarts(task):
    net, images, labels, statistics = task
    kinder, kinder_wrong = losses(net, fgsm(net, images, labels, statistics, radius=4), labels, statistics)
    assert 0 < kinder_wrong.sum() < len(labels), "the task is too hard or too easy to tell"
    for restarts in (1, 2, 4):
        loss, wrong = losses(net, pgd(net, images, labels, statistics, radius=4, restarts=restarts), labels, statistics)
        assert (wrong | ~kinder_wrong).all() and ((loss >= kinder - 1e-5) | (wrong & ~kinder_wrong)).all()
        assert loss.mean() > kinder.mean()
        kinder, kinder_wrong = loss, wrong


def test_pgd_returns_the_worst_of_all_it_saw(task):
    net, images, labels, statistics = task
    seen, labels = [], torch.cat([labels[:12], (labels[12:] + 1) % 5])  # half of them wrong from the start
    hook = net.register_forward_pre_hook(lambda _, given: seen.append(given[0].detach().clone()))
    found = pgd(net, images, labels, statistics, steps=4, restarts=2)
    hook.remove()
    assert len(seen) == 1 + 2 * (4 + 1)
    met = [losses(net, x, labels, ((0.0,) * 3, (1.0,) * 3)) for x in seen]
    for i, (loss, wrong) in enumerate(zip(*losses(net, found, labels, statistics))):
        worst = max((bool(failed[i]), lost[i].item()) for lost, failed in met)
        assert (bool(wrong), loss.item()) == (worst[0], pytest.approx(worst[1], rel=1e-5))


def test_random_starts_come_from_the_seed(task):
    net, images, labels, statistics = task
    first, again, other = (pgd(net, images, labels, statistics, steps=6, restarts=3, seed=s) for s in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_steps_are_a_quarter_of_the_radius(task):
    net, images, labels, _ = task
    seen = []
    hook = net.register_forward_pre_hook(lambda _, given: seen.append(255 * given[0].detach()))
    pgd(net, images, labels, ((0.0,) * 3, (1.0,) * 3), radius=8, steps=3, restarts=1)
    hook.remove()
    moves = [(after - before).abs().max().item() for before, after in zip(seen, seen[1:])]
    assert moves == pytest.approx([8, 2, 2, 2], abs=1e-3)  # Madry et al.: 2/255 at radius 8


@pytest.mark.parametrize("name", ATTACKS)
def test_the_network_is_left_as_found(task, name):
    _, images, labels, statistics = task
    net, state = a_network(), torch.get_rng_state()
    net.train()
    net.trunk.stages[1].eval()
    net.head.weight.requires_grad_(False)
    net.head.bias.grad = torch.ones(5)
    modes, weights = [m.training for m in net.modules()], {k: v.clone() for k, v in net.state_dict().items()}
    with torch.no_grad():  # a caller's own setting does not matter, nor is it changed
        ATTACKS[name](net, images, labels, statistics)
        assert not torch.is_grad_enabled()
    assert modes == [m.training for m in net.modules()]
    assert all(torch.equal(weights[k], v) for k, v in net.state_dict().items())
    assert not net.head.weight.requires_grad and net.head.bias.requires_grad
    assert torch.equal(net.head.bias.grad, torch.ones(5))
    assert all(p.grad is None for p in net.parameters() if p is not net.head.bias)
    assert torch.equal(state, torch.get_rng_state())


def test_pixels_are_normalised_as_in_training(task):
    _, images, _, statistics = task
    ours = attacks.standardised(attacks._pixels(images), statistics)
    theirs = normalised(images, statistics)
    assert torch.equal(ours, theirs) and ours.stride() == theirs.stride()


def test_foolbox_finds_the_same(task):
    foolbox = pytest.importorskip("foolbox")
    net, images, labels, (mean, std) = task

    class Logits(torch.nn.Module):
        def forward(self, x):
            return net(x).logits
    x, epsilon = images / 255, 4 / 255
    model = foolbox.PyTorchModel(Logits().eval(), bounds=(0, 1), preprocessing={"mean": mean, "std": std, "axis": -3})
    net.eval()
    ours = fgsm(net, images, labels, (mean, std), radius=4)
    _, theirs, _ = foolbox.attacks.LinfFastGradientAttack()(model, x, labels, epsilons=epsilon)
    assert ((ours - theirs).abs() < 1e-5).float().mean() > 0.99  # rounding may turn a gradient of almost zero
    theirs = foolbox.attacks.LinfPGD(steps=10, abs_stepsize=1 / 255).repeat(2)
    _, _, broken = theirs(model, x, labels, epsilons=epsilon)
    _, wrong = losses(net, pgd(net, images, labels, (mean, std), radius=4), labels, (mean, std))
    assert wrong.sum() >= broken.sum() - 1


# Scores

def test_rows_and_their_numbers(task):
    net, images, labels, statistics = task
    teacher = a_network(seed=7)
    found = robust_scores(net, teacher, images, labels, statistics, (1, 5), (0, 4))
    assert [(r["kind"], r["name"], r["severity"], r["radius"]) for r in found] == [
        ("clean", "clean", 0, 0), *(("corruption", name, severity, 0) for name in CORRUPTIONS for severity in (1, 5)),
        ("attack", "fgsm", 0, 0), ("attack", "fgsm", 0, 4), ("attack", "pgd", 0, 0), ("attack", "pgd", 0, 4)]
    seen = [images, *(corrupt(images, name, severity, 0) for name in CORRUPTIONS for severity in (1, 5)),
            *(attack(net, images, labels, statistics, r) for attack in (fgsm, pgd) for r in (0, 4))]
    for row, pixels in zip(found, seen):
        student, guide = (predict(n, pixels, statistics) for n in (net, teacher))
        agreeing = sum(int(a == b) for a, b in zip(student.argmax(1).tolist(), guide.argmax(1).tolist()))
        assert row["agreement"] == pytest.approx(100 * agreeing / len(images))
        assert row.items() >= scores(student, labels).items()
    assert found[0]["accuracy"] == 100 > found[-1]["accuracy"]
    alone = robust_scores(net, None, images, labels, statistics, (), ())
    assert len(alone) == 1 and "agreement" not in alone[0]


def test_clean_is_what_the_evaluation_of_a_training_says(toy):
    from spacedkd_lib import recipes
    from spacedkd_lib.training import train

    recipe = recipes.Recipe(dataset="toy", model="resnet8", width=4, batch_size=8, augment="none", epochs=1)
    (run,), batches, evaluate = train.assemble([recipe], toy, "cpu")
    theirs, = evaluate([run])
    row, = robust_scores(run.method.student, None, toy.test_images, toy.test_labels, batches.statistics, (), ())
    assert {f"test_{key}": row[key] for key in ("accuracy", "nll", "ece")} == theirs


def test_of_several_exits_the_deepest_counts(task):
    _, images, labels, statistics = task
    net = MultiExitResNet("resnet10", 5, 3, width=4).eval()
    with torch.no_grad():
        assert torch.equal(predict(net, images, statistics), net(normalised(images, statistics))[0].logits)
    assert fgsm(net, images, labels, statistics).shape == images.shape


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_pictures_of_one_pixel_can_be_corrupted(name):
    for shape in ((1, 1, 1, 1), (2, 3, 1, 5)):
        assert corrupt(torch.full(shape, 100, dtype=torch.uint8), name, 5, seed=0).shape == shape


# Bad input

@pytest.mark.parametrize("name, severity, sentence", [
    ("fogg", 1, '"fogg" is not a corruption'), ("contrast", 0, "severity = 0"), ("contrast", 6, "severity = 6")])
def test_an_unknown_corruption_is_refused(task, name, severity, sentence):
    with pytest.raises(InputError, match=sentence):
        corrupt(task[1], name, severity, seed=0)


@pytest.mark.parametrize("changes, sentence", [
    (dict(labels=torch.zeros(23, dtype=torch.int64)), r"Labels of type torch.int64 and shape \[23\] do not fit 24"),
    (dict(labels=torch.zeros(24)), "Labels of type torch.float32"),
    (dict(images=torch.zeros(24, 3, 16, 16)), "Images of type torch.float32"),
    (dict(images=torch.zeros(24, 2, 16, 16, dtype=torch.uint8)), r"shape \[24, 2, 16, 16\]"),
])
def test_an_attack_on_bad_input_is_refused_before_any_work(task, monkeypatch, changes, sentence):
    monkeypatch.setattr(attacks, "_attack_state", None)  # no gradient may be taken
    with pytest.raises(InputError, match=sentence):
        pgd(**dict(zip(("net", "images", "labels", "statistics"), task)) | changes)
