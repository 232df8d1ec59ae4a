"""Batches on a GPU: what they cost, counted on fake tensors; its ways of computing, held to the CPU's bit for bit."""

import pytest
import torch
from fake_cuda import Counts, fake_cuda
from test_batches import augmented, noise, operated, smooth

from spacedkd_lib.data import augment, operations, rand_augment
from spacedkd_lib.data.batches import STATISTICS, Batches, generator, normalised
from spacedkd_lib.recipes import AUGMENTATIONS

CUDA = torch.device("cuda")
# Augmentation, size, most launches for 128 images of 32 pixels. Before they were sorted by operation on the CPU,
# AutoAugment made 497 and "strong" 1,881.
CASES = [("none", 0, 10), ("crop", 0, 30), ("crop_flip", 0, 30), ("crop_flip_rotate", 0, 45),
         ("autoaugment_cutout", 0, 370), ("strong", 0, 500), ("none", 20, 120), ("strong", 20, 550)]


# What a batch costs

def made_on_fake_gpu(augmentation, size=0):
    return Batches(noise(300, (3, 32, 32)), torch.arange(300), 128, 0, augmentation, STATISTICS["cifar100"], CUDA,
                   size=size)


def assert_one_copy(counts):
    assert len(counts.to_gpu) == 1 and not counts.pageable and not counts.waits and not counts.to_cpu
    assert not any("index_put" in name for name in counts.launches)


@pytest.mark.parametrize("augmentation, size, most", CASES)
def test_a_batch_takes_one_pinned_copy_no_wait_and_few_launches(augmentation, size, most):
    with fake_cuda():
        data = made_on_fake_gpu(augmentation, size)
        with Counts() as first:
            data[0]
        assert len(first.pageable) <= 2 and not first.waits  # the statistics, and what lies beyond an edge
        for i in (1, 3):  # 3 begins an epoch
            with Counts() as counts:
                x, y = data[i]
            assert x.is_cuda and y.is_cuda and x.is_contiguous(memory_format=torch.channels_last)
            assert_one_copy(counts)
            assert sum(counts.launches.values()) <= most


@pytest.mark.parametrize("augmentation", ["crop_flip", "strong"])
def test_other_draws_and_parts_take_one_copy_too(augmentation):
    with fake_cuda():
        data = made_on_fake_gpu(augmentation)
        data[0]
        for other in (data.fresh(), data.of(torch.arange(200), "part")):
            with Counts() as counts:
                other[0]
            assert_one_copy(counts)


def test_statistics_cross_once():
    with fake_cuda():
        images = torch.zeros(4, 3, 8, 8, dtype=torch.uint8, device=CUDA)
        normalised(images, STATISTICS["cifar10"])
        with Counts() as counts:
            normalised(images, STATISTICS["cifar10"])
            normalised(images, [list(part) for part in STATISTICS["cifar10"]])
        assert not counts.to_gpu and not counts.waits


def test_what_crosses_in_one_copy_arrives_as_it_was(monkeypatch):
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: self)
    monkeypatch.setattr(torch.Tensor, "to", lambda self, device, non_blocking: self)
    made = {"bool": torch.tensor([True, False, True]), "int": torch.arange(5, dtype=torch.int32), "groups": [{"": 3}],
            "long": torch.arange(12).view(3, 4).mT, "byte": torch.tensor([[7]], dtype=torch.uint8),
            "none": torch.zeros(0, 2), "double": torch.rand(3, dtype=torch.float64), "half": torch.rand(3).bfloat16()}
    got = augment.to_device(made, CUDA)
    assert got.keys() == made.keys() and got["groups"] is made["groups"]
    for name in made.keys() - {"groups"}:
        assert got[name].dtype == made[name].dtype and torch.equal(got[name], made[name])


def test_no_augmentation_is_left_out():
    assert {name for name, _, _ in CASES} == set(AUGMENTATIONS)


# What it computes

@pytest.fixture
def as_on_gpu(monkeypatch):
    """What the device decides where it computes; `strong.ready` is told the device."""
    def switch():
        monkeypatch.setattr(operations, "_below_by_counting", operations._below_by_sorting)
        monkeypatch.setattr(rand_augment, "CHUNK", 10**6)
    return switch


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 16, 16), (3, 24, 40), (1, 5, 9)], ids=str)
def test_every_strong_operation_is_the_cpus_bit_for_bit(shape, as_on_gpu):
    values = {name: [rand_augment.magnitude(name, level, sign) for level in (0.0, 0.7, 3.3, 6.1, 8.9, 9.37, 10.0)
                     for sign in (1, -1)] for name in rand_augment.NAMES}
    rotate = {"rotate": rand_augment.MATRICES["rotate"]}
    for images in (noise(14, shape), smooth(14, shape)):
        here = {name: operated(name, images, values[name], rotate, rand_augment.OPERATIONS) for name in rand_augment.NAMES}
        as_on_gpu()
        for name in rand_augment.NAMES:
            there = operated(name, images, values[name], rand_augment.MATRICES, rand_augment.OPERATIONS)
            assert torch.equal(here[name], there), name


@pytest.mark.parametrize("size", [0, 20, 48])
@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 16, 24)], ids=str)
@pytest.mark.parametrize("augmentation", ["autoaugment_cutout", "strong"])
def test_whole_batches_are_the_cpus_bit_for_bit(augmentation, shape, size, as_on_gpu):
    draws = [rand_augment.draw(augmentation, 96, *shape[1:], generator(0, "many", k), size) for k in range(8)]
    images = torch.cat([noise(48, shape), smooth(48, shape)])
    here = [augmented(images, drawn) for drawn in draws]
    as_on_gpu()
    for drawn, expected in zip(draws, here):
        made = rand_augment.ready(drawn, expected.shape[1:], CUDA)
        assert torch.equal(rand_augment.changed(images, made), expected)
    operations = {name for groups in made["groups"] for name in groups}
    assert "affine" in operations and not operations & {"shear_x", "translate_x", "translate_y", "rotate"}


def test_grey_levels_below_are_counted_alike_by_sorting():
    levels = torch.cat([noise(6, (1, 9, 9)), smooth(6, (1, 9, 9))]).flatten(1)
    levels[1], levels[2] = 0, 255
    assert torch.equal(operations._below_by_counting(levels), operations._below_by_sorting(levels))


def test_noise_goes_to_the_pixels_of_the_holes_in_their_order():
    drawn = rand_augment.draw("strong", 64, 12, 20, generator(2))
    top, left, height, width = drawn["hole"][:, :, None].unbind(1)
    down, right = torch.arange(12) - top, torch.arange(20) - left
    inside = ((0 <= down) & (down < height))[:, :, None] & ((0 <= right) & (right < width))[:, None]
    image, row, column = inside.nonzero(as_tuple=True)
    expected = torch.zeros(64, 3, 12, 20)
    seeded = torch.Generator().manual_seed(drawn["noise"])
    expected[image, :, row, column] = torch.randn(len(image), 3, generator=seeded)
    made = rand_augment.ready(drawn, (3, 12, 20), torch.device("cpu"))
    assert torch.equal(rand_augment.filled(torch.zeros(64, 3, 12, 20), made), expected)
