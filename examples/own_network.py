"""A network of one's own as student, with a ResNet as its teacher."""

import dataclasses

import digits
from torch import nn

import spacedkd_lib as skd


@skd.register_network
def small_cnn(classes, channels, size):
    """Two convolutions and a linear layer, whose input are the features."""
    return nn.Sequential(nn.Conv2d(channels, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(),
                         nn.Conv2d(16, 32, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                         nn.Linear(32, classes))


RECIPE = dataclasses.replace(digits.RECIPE, model="small_cnn", width=0, teacher_model="resnet8", teacher_width=4)

if __name__ == "__main__":
    print(skd.run(RECIPE).summary["test_accuracy"])
