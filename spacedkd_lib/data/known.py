"""Public data sets: their sources and contents."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Known:
    """The contents and the sources of a public image set."""

    classes: int
    train: int  # images a class
    test: int  # images a class
    pixels: int  # height and width
    archive: str  # the official file
    folder: str  # what it unpacks to
    address: str  # of the folder that holds the official file
    md5: str  # of the official file


KNOWN = {
    "cifar10": Known(10, 5000, 1000, 32, "cifar-10-python.tar.gz", "cifar-10-batches-py",
                     "https://www.cs.toronto.edu/~kriz", "c58f30108f718f92721af3b95e74349a"),
    "cifar100": Known(100, 500, 100, 32, "cifar-100-python.tar.gz", "cifar-100-python",
                      "https://www.cs.toronto.edu/~kriz", "eb9058c3a382ffc7106e4002c42a8d85"),
    "tiny-imagenet": Known(200, 500, 50, 64, "tiny-imagenet-200.zip", "tiny-imagenet-200",
                           "http://cs231n.stanford.edu", "90528d7ca1a48142e341f4ef8d21d0de"),
}

EMBEDDED = ("digits", "glyphs")
NAMES = EMBEDDED + tuple(KNOWN)
