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
    unpacked: tuple[str, ...] = ()  # MD5 of what it unpacks to: the training files, the test file, the names


KNOWN = {
    "cifar10": Known(10, 5000, 1000, 32, "cifar-10-python.tar.gz", "cifar-10-batches-py",
                     "https://www.cs.toronto.edu/~kriz", "c58f30108f718f92721af3b95e74349a",
                     ("c99cafc152244af753f735de768cd75f", "d4bba439e000b95fd0a9bffe97cbabec",
                      "54ebc095f3ab1f0389bbae665268c751", "634d18415352ddfa80567beed471001a",
                      "482c414d41f54cd18b22e5b47cb7c3cb", "40351d587109b95175f43aff81a1287e",
                      "5ff9c542aee3614f3951f8cda6e48888")),
    "cifar100": Known(100, 500, 100, 32, "cifar-100-python.tar.gz", "cifar-100-python",
                      "https://www.cs.toronto.edu/~kriz", "eb9058c3a382ffc7106e4002c42a8d85",
                      ("16019d7e3df5f24257cddd939b257f8d", "f0ef6b0ae62326f3e7ffdfab6717acfc",
                       "7973b15100ade9c7d40fb424638fde48")),
    "tiny-imagenet": Known(200, 500, 50, 64, "tiny-imagenet-200.zip", "tiny-imagenet-200",
                           "http://cs231n.stanford.edu", "90528d7ca1a48142e341f4ef8d21d0de"),
}

EMBEDDED = ("digits", "glyphs")
NAMES = EMBEDDED + tuple(KNOWN)
