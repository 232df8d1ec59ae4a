"""Where the released programs of spaced dropout and of spaced EMA differ from what they are said to be: B and M rows.

github.com/SunGL001/spacing_generalization, commit bc0f466. DR is dropout/model/resnet.py, DT dropout/train.py, ET
online_KD/train_EMA.py. Rows are numbered as in our reading of it; M1 to M7 are the rows E1 to E7 there (E is Education
Distillation's letter here). "expected" is what the README says, or the usual definition of the named technique. The
program's third part, train_kd.py, is the one that cnn.py tells of. Left out: options that nothing reads, and
cutout of inputs whose hole swings like the rate (cutout_input).
Told in notebooks/13_spacing_beyond_kd.ipynb. No torch here.
"""

from __future__ import annotations

from .deviation import Deviation

ROWS = (
    Deviation("B1", "high", "dropout is at work in tests", "DR 101-170; dropout/model/MaxDropout.py 21, 44",
              "Dropout in training only.",
              "Its modules are made anew inside the forward pass, so they are always in training mode.",
              "Every accuracy is measured under dropout: constant dropout at its full rate, spaced dropout at whatever "
              "rate its sine has then.", {"baseline": {"dropout_at_test": "on"}}),
    Deviation("B2", "high", "test batches move the sine", "DR 177", "A rate that follows training.",
              "The counter is in the forward pass, so the 79 batches of a test move it too, by a fifth of a period of "
              "one epoch.",
              "The mean rate at which spaced dropout is tested swings between 0.08 and 0.49 from epoch to epoch; the "
              "best epoch on the test set is one with almost no dropout, which constant dropout cannot have.",
              {"baseline": {"dropout_at_test": "on_counted"}}),
    Deviation("B3", "high", "long periods are random rates", "DR 105-166, against DT 311 and ET 354",
              "A period given in epochs.",
              "A period of 500 or more is a code for random rates; it is meant in epochs and compared in batches.",
              "On CIFAR-100 periods from 1.28 epochs on are no sine, the default of 10 included; on Tiny-ImageNet from "
              "0.64 on.", elsewhere="recipes.released_dropout, which sets dropout_rule = \"random\" where it does"),
    Deviation("B4", "high", "another mean rate", "the design", "Spacing, and nothing else.",
              "The mean of |sin| is 2/pi, so spaced dropout at 0.5 drops 0.318 on average, and is set beside a "
              "constant 0.5.", "A weaker dropout is compared with a stronger one.",
              elsewhere="the arms of equal mean in notebook 13"),
    Deviation("B5", "medium", "the default data set does not exist", "DT 184-193", "CIFAR-10, as in the README.",
              "No loader of that name.", "It ends with an error.",
              elsewhere="datasets.load, which names what there is"),
    Deviation("B6", "medium", "a new best epoch keeps its learning rate", "DT 348-361",
              "A schedule that follows the epochs.", "A new best skips the scheduler's step.",
              "Steps come later for a network that improves.", elsewhere="learning_rate, by batches"),
    Deviation("B7", "medium", "no period, no seed", "DR 108; DT 85", "Refusal; repeatable runs.",
              "A period of 0 divides by zero; random rates come from a generator without a seed.",
              "Runs that nobody can repeat.", elsewhere="a sentence for such a period; the field seed"),
    Deviation("M1", "high", "scored by the statistics of the test batch", "ET 35-50",
              "Accuracy of one picture at a time, by running statistics.",
              "Neither network is put into eval mode: batch norm takes mean and variance from shuffled test batches.",
              "An answer depends on the other pictures of its batch.", {"ema": {"ema_statistics": "batch"}}),
    Deviation("M2", "high", "running statistics are not averaged", "ET 61-64", "An average that can be used.",
              "Only parameters are averaged; its running statistics stay those of the initialisation.",
              "Hidden by M1. With eval mode alone the average is at the level of chance or little above.",
              {"ema": {"ema_statistics": "stale"}}, in_preset=False),
    Deviation("M3", "high", "a longer memory with each interval", "ET 352-392", "Spacing, and nothing else.",
              "The same decay whatever the interval: 0.99 forgets in 100 updates, spaced by 39 in 3,900.",
              "A long average is compared with a short one.",
              elsewhere="dropout_ema.equal_horizon, and the arm of that name in notebook 13"),
    Deviation("M4", "high", "the initialisation stays in the average", "ET 352-392", "An average of trained weights.",
              "It starts at the initialisation, without a correction.",
              "After 80 epochs 20% of it are initial weights at an interval of 0.5 and 45% at 1; by the default decay "
              "of 0.999 and interval of 1, 92%.", {"ema": {"ema_debias": False}}),
    Deviation("M5", "medium", "the learning rate never falls", "ET 264-280, 359", "An option --lr_decay.",
              "The scheduler is made and never stepped.", "A constant rate, at which averages help most.",
              {"ema": {"lr_schedule": "constant"}}),
    Deviation("M6", "medium", "the wrong network is saved", "ET 403-408", "The weights that were scored.",
              "The file of the best average holds the network itself.", "The reported weights are lost.",
              elsewhere="records, whose student is the average as it was scored"),
    Deviation("M7", "medium", "an interval below one batch", "ET 354-355", "Refusal.",
              "It is rounded to zero updates, and the average never moves.", "Accuracy of an untrained network.",
              elsewhere="a sentence for such an interval"),
)
