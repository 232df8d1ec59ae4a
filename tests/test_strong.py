"""The strong augmentation: every pixel against PIL and timm, then the draws against timm's own, then whole batches."""

import random

import numpy as np
import pytest
import test_batches
import torch
from PIL import Image
from scipy.stats import ks_2samp
from test_batches import augmented, noise, one_by_one, smooth, to_pil

from spacedkd_lib.data import rand_augment
from spacedkd_lib.data.batches import STATISTICS, Batches, generator
from spacedkd_lib.recipes import AUGMENTATIONS

TIMM = {"autocontrast": "AutoContrast", "equalize": "Equalize", "invert": "Invert", "rotate": "Rotate",
        "posterize": "PosterizeIncreasing", "solarize": "SolarizeIncreasing", "solarize_add": "SolarizeAdd",
        "colour": "ColorIncreasing", "contrast": "ContrastIncreasing", "brightness": "BrightnessIncreasing",
        "sharpness": "SharpnessIncreasing", "shear_x": "ShearX", "shear_y": "ShearY", "translate_x": "TranslateXRel",
        "translate_y": "TranslateYRel"}
GEOMETRY = ("rotate", "shear_x", "shear_y", "translate_x", "translate_y")
LEVELS = [0.0, 0.7, 3.3, 5.0, 7.5, 8.1, 8.9, 9.0, 9.37, 10.0]
LARGEST_SHARE = 1e-4  # of differing pixels


def mended(transform):
    """timm's RandAugment with posterize of 0 bits black, as PIL had it before it refused 0."""
    for op in transform.ops:
        if op.name == "PosterizeIncreasing":
            op.aug_fn = posterize
    return transform


def posterize(picture, bits, **_):
    return Image.eval(picture, lambda level: level & (256 - 2 ** (8 - bits)))


def timms_pipeline():
    from timm.data import create_transform
    from timm.data.auto_augment import RandAugment

    whole = create_transform(32, is_training=True, auto_augment="rand-m9-mstd0.5-inc1", re_prob=.25, re_mode="pixel",
                             re_count=1, interpolation="bicubic")
    mended(next(step for step in whole.transforms if isinstance(step, RandAugment)))
    return whole


@pytest.fixture(autouse=True)
def seeded():
    """timm draws from three global generators."""
    kept = random.getstate(), np.random.get_state()
    with torch.random.fork_rng():
        random.seed(1), np.random.seed(1), torch.manual_seed(1)
        yield
    random.setstate(kept[0]), np.random.set_state(kept[1])


def erased(x, drawn):
    return rand_augment.filled(x, rand_augment.ready(drawn, x.shape[1:], x.device))


def operated(name, images, values):
    matrices = {"rotate": rand_augment.MATRICES["rotate"]}
    return test_batches.operated(name, images, values.tolist(), matrices, rand_augment.OPERATIONS)


def assert_alike(ours, theirs):
    """Two samples of one distribution: the largest distance of their cumulated shares. By chance one of 1,000 fails."""
    ours, theirs = np.asarray(ours, dtype=float), np.asarray(theirs, dtype=float)
    bound = 1.95 * np.sqrt(1 / len(ours) + 1 / len(theirs))
    assert ks_2samp(ours, theirs, method="asymp").statistic < bound


# Pixels

@pytest.mark.parametrize("shape", [(3, 32, 32), (3, 24, 40)], ids=str)
@pytest.mark.parametrize("name", rand_augment.NAMES)
def test_operation_equals_timms_at_the_same_level(name, shape, monkeypatch):
    from timm.data import auto_augment

    options = dict(fillcolor=(124, 116, 104), resample=Image.Resampling.BICUBIC)
    cases = [(level, sign) for level in LEVELS for sign in (1, -1)]
    values = torch.tensor([rand_augment.magnitude(name, *case) for case in cases], dtype=torch.float64)

    def theirs(picture, b):
        level, sign = cases[b]
        monkeypatch.setattr(auto_augment, "_randomly_negate", lambda value: sign * value)
        to_argument = auto_augment.LEVEL_TO_ARG[TIMM[name]]
        arguments = to_argument(level, {}) if to_argument else ()
        operation = posterize if name == "posterize" else auto_augment.NAME_TO_OP[TIMM[name]]
        return operation(picture, *arguments, **options)
    for images in (noise(len(cases), shape), smooth(len(cases), shape)):
        ours = operated(name, images, values)
        assert ours.dtype == torch.uint8
        assert (ours != one_by_one(images, theirs)).double().mean() <= LARGEST_SHARE


@pytest.mark.parametrize("matrices", [{}, rand_augment.MATRICES], ids=["rows", "matrices"])
@pytest.mark.parametrize("name, entry", [("translate_x", 2), ("translate_y", 5)])
def test_an_edge_is_inside_where_it_begins_alone(name, entry, matrices):
    """Half a pixel off, the centres of the outermost pixels fall on it."""
    images, shares = smooth(2, (3, 32, 32)), [0.5 / 32, -0.5 / 32]

    def theirs(picture, b):
        matrix = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0]
        matrix[entry] = 32 * shares[b]
        return picture.transform(picture.size, Image.Transform.AFFINE, matrix, Image.Resampling.BICUBIC,
                                 fillcolor=(124, 116, 104))
    ours = test_batches.operated(name, images, shares, matrices, rand_augment.OPERATIONS)
    assert torch.equal(ours, one_by_one(images, theirs))


def test_operations_are_timms_increasing_ones():
    from timm.data.auto_augment import _RAND_INCREASING_TRANSFORMS

    assert sorted(TIMM[name] for name in rand_augment.NAMES) == sorted(_RAND_INCREASING_TRANSFORMS)


@pytest.mark.parametrize("name", GEOMETRY)
def test_grey_images_are_those_of_a_colour_image_of_equal_channels_and_its_luma_beyond(name):
    images = smooth(10, (1, 24, 40))
    values = torch.tensor([rand_augment.magnitude(name, level) for level in LEVELS], dtype=torch.float64)
    ours = operated(name, images, values)
    colour = operated(name, images.repeat(1, 3, 1, 1), values)
    beyond = (operated(name, torch.zeros(10, 3, 24, 40, dtype=torch.uint8), values) == torch.tensor(
        [124, 116, 104])[:, None, None]).all(1, keepdim=True)
    assert torch.equal(ours[~beyond], colour[:, :1][~beyond]) and beyond.any()
    assert (ours[beyond] == 117).all()  # 0.299 * 124 + 0.587 * 116 + 0.114 * 104


@pytest.mark.parametrize("shape, size", [((3, 32, 32), 32), ((1, 16, 16), 16), ((3, 24, 40), 48), ((3, 8, 8), 64),
                                         ((3, 64, 48), 20), ((1, 64, 64), 7), ((3, 5, 9), 1)], ids=str)
def test_a_resized_part_is_pils_to_the_bit(shape, size):
    """PIL asked for the columns and then for the rows: where a part shrinks, PIL 13 may begin with the rows."""
    count, bicubic = 80, Image.Resampling.BICUBIC
    box = rand_augment._draw_box(count, *shape[1:], generator(4, "box"))
    box[0] = torch.tensor([0, 0, *shape[1:]])

    def theirs(picture, b):
        top, left, height, width = box[b].tolist()
        part = picture.crop((left, top, left + width, top + height))
        steps = part.resize((size, height), bicubic).resize((size, size), bicubic)
        if max(height, width) <= size:
            assert steps == part.resize((size, size), bicubic)
        return steps
    for images in (noise(count, shape), 255 * (noise(count, shape) > 127).to(torch.uint8), smooth(count, shape)):
        assert torch.equal(augmented(images, {"box": box, "size": (size, size)}), one_by_one(images, theirs))


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 2, 2), (1, 3, 7), (3, 4, 30)], ids=str)
@pytest.mark.parametrize("size", [0, 5])
def test_small_and_narrow_images(shape, size):
    images = noise(60, shape)
    drawn = rand_augment.draw("strong", 60, *shape[1:], generator(0), size)
    got = augmented(images, drawn)
    assert got.shape == (60, shape[0], *((size, size) if size else shape[1:])) and got.dtype == torch.uint8
    assert torch.isfinite(erased(got.float(), drawn)).all()


# Erasing

def test_noise_fills_the_holes_and_nothing_else():
    drawn = rand_augment.draw("strong", 2000, 12, 20, generator(2))
    x = erased(torch.full((2000, 3, 12, 20), 9.0), drawn)
    inside = torch.zeros(2000, 12, 20, dtype=torch.bool)
    for b, (top, left, height, width) in enumerate(drawn["hole"].tolist()):
        inside[b, top:top + height, left:left + width] = True
    values = x.transpose(0, 1)[:, inside]
    assert (x.transpose(0, 1)[:, ~inside] == 9).all() and (values != 9).all()
    assert values.mean().abs() < 0.02 and values.std() == pytest.approx(1, abs=0.02)
    assert torch.corrcoef(values).triu(1).abs().max() < 0.03  # a number of its own for each channel
    again = erased(torch.full((2000, 3, 12, 20), 9.0), drawn)
    assert torch.equal(again, x)


def test_noise_takes_the_type_of_the_images():
    drawn = rand_augment.draw("strong", 40, 8, 8, generator(2))
    x = erased(torch.zeros(40, 1, 8, 8, dtype=torch.bfloat16), drawn)
    assert x.dtype == torch.bfloat16
    assert torch.equal(x, erased(torch.zeros(40, 1, 8, 8), drawn).bfloat16())


# Draws

@pytest.mark.parametrize("height, width", [(32, 32), (24, 40), (20, 60)])
def test_parts_are_drawn_as_timm_draws_them(height, width):
    from timm.data.transforms import RandomResizedCropAndInterpolation

    picture = Image.new("RGB", (width, height))
    theirs = np.array([RandomResizedCropAndInterpolation.get_params(picture, (0.08, 1.0), (3 / 4, 4 / 3))
                       for _ in range(8000)])
    ours = rand_augment._draw_box(20_000, height, width, generator(1)).numpy()
    for sample in (0, 1, 2, 3):
        assert_alike(ours[:, sample], theirs[:, sample])
    assert_alike(ours[:, 2] * ours[:, 3], theirs[:, 2] * theirs[:, 3])
    assert_alike(ours[:, 2] / ours[:, 3], theirs[:, 2] / theirs[:, 3])


@pytest.mark.parametrize("height, width", [(32, 32), (16, 40)])
def test_holes_are_drawn_as_timm_draws_them(height, width):
    from timm.data.random_erasing import RandomErasing

    def hole(erase):
        mask = erase(torch.zeros(1, height, width))[0] != 0
        rows, columns = mask.any(1).nonzero().flatten(), mask.any(0).nonzero().flatten()
        return [rows[0], columns[0], len(rows), len(columns)] if len(rows) else [0] * 4
    theirs = np.array([hole(RandomErasing(0.25, mode="pixel", max_count=1, device="cpu")) for _ in range(3000)])
    ours = rand_augment.draw("strong", 20_000, height, width, generator(1))["hole"].numpy()
    assert (ours[:, 2] > 0).mean() == pytest.approx(0.25, abs=0.016)
    assert (theirs[:, 2] > 0).mean() == pytest.approx(0.25, abs=0.04)
    ours, theirs = ours[ours[:, 2] > 0], theirs[theirs[:, 2] > 0]
    for sample in (0, 1, 2, 3):
        assert_alike(ours[:, sample], theirs[:, sample])
    assert_alike(ours[:, 2] * ours[:, 3], theirs[:, 2] * theirs[:, 3])


def test_operations_and_values_are_drawn_as_timm_draws_them(monkeypatch):
    from timm.data.auto_augment import rand_augment_transform

    names, seen = {timms: name for name, timms in TIMM.items()}, {name: [] for name in TIMM}
    theirs = rand_augment_transform("rand-m9-mstd0.5-inc1", {})
    for op in theirs.ops:
        op.aug_fn = lambda picture, *value, kept=seen[names[op.name]], **_: kept.append(value[0] if value else 0.0)
    for _ in range(8000):
        theirs(None)
    count, got = 15_000, {name: [] for name in rand_augment.NAMES}
    drawn = rand_augment.draw("strong", count, 4, 4, generator(3))
    for slot in rand_augment.chosen(drawn):
        for name, value in slot:
            if name:
                got[name].append(value)
    for name, values in seen.items():
        for total, of in ((len(values), 8000), (len(got[name]), count)):
            assert total / of == pytest.approx(2 * 0.5 / 15, abs=5 * np.sqrt(1 / 15 / of))
        factor = 1 if name in ("colour", "contrast", "brightness", "sharpness") else 0
        assert_alike(factor + np.array(got[name]), values)
    applied = drawn["applies"].sum(1)
    assert np.bincount(applied) / count == pytest.approx([0.25, 0.5, 0.25], abs=0.02)


def test_levels_and_flips():
    drawn = rand_augment.draw("strong", 20_000, 8, 8, generator(1))
    assert drawn["level"].min() > 6 and drawn["level"].max() == 10
    assert drawn["level"].median() == pytest.approx(9, abs=0.03)
    assert (drawn["level"] == 10).double().mean() == pytest.approx(0.0228, abs=0.0055)  # P(z > 2)
    assert drawn["flip"].double().mean() == pytest.approx(0.5, abs=0.018)


# Whole batches

def test_every_second_image_is_flipped_and_nothing_else():
    images = smooth(60, (3, 16, 16))
    drawn = rand_augment.draw("strong", 60, 16, 16, generator(1)) | {"applies": torch.zeros(60, 2, dtype=torch.bool)}
    upright = augmented(images, {"box": drawn["box"], "size": (16, 16)})
    got, flip = augmented(images, drawn), drawn["flip"]
    assert torch.equal(got[flip], upright[flip].flip(-1)) and torch.equal(got[~flip], upright[~flip])


def test_the_whole_pipeline_is_timms_in_distribution():
    images, theirs = smooth(400, (3, 32, 32)), timms_pipeline()
    pictures = [to_pil(image) for image in images]
    theirs = torch.stack([theirs(picture) for picture in pictures * 2])
    data = Batches(images, torch.arange(400), 400, 0, "strong", STATISTICS["imagenet"])
    ours = torch.cat([data[i][0] for i in range(4)])
    assert ours.shape[1:] == theirs.shape[1:] and ours.dtype == theirs.dtype
    assert ours.mean() == pytest.approx(theirs.mean().item(), abs=0.15)
    assert ours.std() == pytest.approx(theirs.std().item(), abs=0.1)
    steps = [(lambda x: x.mean((1, 2, 3))), (lambda x: x.std((1, 2, 3))), (lambda x: x.amax((1, 2, 3))),
             (lambda x: x.amin((1, 2, 3))), (lambda x: x.diff(dim=3).abs().mean((1, 2, 3))),
             (lambda x: (x[..., :16] - x[..., 16:]).mean((1, 2, 3))), (lambda x: (x[:, 0] - x[:, 2]).mean((1, 2)))]
    for statistic in steps:
        assert_alike(statistic(ours), statistic(theirs))


def test_an_image_does_not_depend_on_its_neighbours():
    images, others = noise(90, (3, 16, 16)), noise(90, (3, 16, 16), seed=1)
    drawn = rand_augment.draw("strong", 90, 16, 16, generator(7), 24)
    whole = augmented(images, drawn)
    for b in (0, 37, 89):
        others[b] = images[b]
        alone = {key: value[b:b + 1] if torch.is_tensor(value) else value for key, value in drawn.items()}
        assert torch.equal(augmented(images[b:b + 1], alone)[0], whole[b])
    again = augmented(others, drawn)
    for b in (0, 37, 89):
        assert torch.equal(erased(again.float(), drawn)[b], erased(whole.float(), drawn)[b])


@pytest.mark.parametrize("size", [0, 12, 40])
@pytest.mark.parametrize("shape", [(3, 16, 16), (1, 12, 20)], ids=str)
@pytest.mark.parametrize("augment", AUGMENTATIONS)
def test_batches_have_the_size_asked_for(augment, shape, size):
    data = Batches(noise(12, shape), torch.arange(12), 6, 0, augment, size=size)
    x, _ = data[3]
    assert x.shape == (6, shape[0], *((size, size) if size else shape[1:]))
    assert x.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(x, Batches(noise(12, shape), torch.arange(12), 6, 0, augment, size=size)[3][0])


def test_without_augmentation_images_are_resized_whole():
    images = smooth(8, (3, 20, 30))
    data = Batches(images, torch.arange(8), 8, 0, "none", ((0, 0, 0), (1, 1, 1)), size=48)
    theirs = one_by_one(images, lambda picture, b: picture.resize((48, 48), Image.Resampling.BICUBIC))
    assert torch.equal((data[0][0] * 255).round().to(torch.uint8), theirs[data.indices(0)])


def test_the_size_of_the_images_themselves_changes_nothing():
    make = dict(images=smooth(8, (3, 16, 16)), labels=torch.arange(8), batch_size=8, seed=0)
    for augment in ("crop_flip_rotate", "strong"):
        assert torch.equal(Batches(**make, augment=augment)[0][0], Batches(**make, augment=augment, size=16)[0][0])
