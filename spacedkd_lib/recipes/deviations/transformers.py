"""Where the released transformer programs differ from the method, and from the CNN programs beside them: V rows.

github.com/SunGL001/Spaced-KD, folder vit/, commit deecb4d. Lines: TR is vit/pycls/core/trainer.py, DI is
vit/pycls/core/distill.py (and files of these names below them). The ids are those of our reading of that code.
Told in notebooks/12_vision_transformers.ipynb. No torch here.
"""

from __future__ import annotations

from .deviation import Deviation


def _kd(**fields) -> dict[str, dict]:
    return {"online_kd": fields, "offline_kd": fields}


def _online(**fields) -> dict[str, dict]:
    return {"online_kd": fields}


ROWS = (
    Deviation("V1", "high", "the network whose turn it is not moves on", "TR 138-150, 165-185; optimizer.py 79",
              "A student that rests while its teacher runs ahead, and a teacher that stands still while it teaches.",
              "One AdamW holds both. Losses times zero keep every parameter in the graph, so the idle network has "
              "gradients of zero and is updated: it coasts along its momentum, its weights decay, its second moment "
              "shrinks.",
              "Late in a long run both networks of spaced KD have about 1.41 times the effective learning rate and "
              "twice the weight decay of the online run that they are compared with; the teacher drifts while it "
              "teaches.",
              _online(idle_update="zero_grad")),
    Deviation("V2", "high", "soft loss divided by batch times classes", "DI 35-40",
              "Kullback-Leibler divergence, mean over the batch.", "Divided by the number of classes as well.",
              "A weight of 1/100 (CIFAR-100) or 1/200 of the nominal one: but for DeiT, whose distillation token "
              "learns from nothing else, online KD is almost training on labels alone.", _kd(soft_loss="kl_per_class")),
    Deviation("V3", "high", "PiT's intervals 1.5 and 2.0 are 1.0", "configs/pit/*_space_1_5.yaml, *_space_2_0.yaml, 33",
              "The interval that the file's name says.", "All four files contain SPACE_INTERVAL 1.0.",
              "On CIFAR-100 the three files are identical: three names, one configuration, one seed. On Tiny-ImageNet "
              "2.0 differs from 1.0 in the number of GPUs only.",
              elsewhere='recipes.preset(..., "released"), which sets interval = 1.0 for timm/pit_ti_224'),
    Deviation("V4", "high", "the student has a token that its baseline has not", "deit.py 28-61, 98-101; DI 69-79",
              "Student, teacher and baseline of one architecture.",
              "With a soft loss DeiT gets a distillation token and a second head, and predicts by the mean of both.",
              "DeiT's gain mixes architecture, two heads and distillation.", _kd(dist_token="released")),
    Deviation("V5", "high", "the student draws its own batches", "TR 155; loader.py 39; TR 85-87",
              "The student learns what its teacher has just learnt (the CNN programs replay the very pixels).",
              "A second loader, begun anew at each block. On several GPUs it has the teacher's order, so at s = 0.5 "
              "the student sees half of each epoch twice; that form is not built here.",
              "Two programs of one release distil by different rules; and what the student sees depends on the number "
              "of GPUs.", _online(replay="restart")),
    Deviation("V6", "medium", "the student is run twice", "DI 121-123; base.py 45", "One pass of the student.",
              "Without a distillation token the soft loss has a second pass, with another drop path.",
              "Half as much again in costs, and two noises.", _kd(student_forwards=2)),
    Deviation("V7", "medium", "the teacher teaches in train mode", "TR 89; DI 134-136", "A trained teacher's answer.",
              "Drop path is active in it.", "Noisy targets, offline too.", _kd(teacher_mode="train")),
    Deviation("V8", "medium", "best epoch on the test set", "meters.py 261; checkpoint.py 115-120", "Test accuracy.",
              "The best of 300 epochs; the offline teacher is chosen so, too.", "Optimistic.",
              elsewhere="the column best_on_test_accuracy of tables.runs"),
    Deviation("V9", "medium", "the number of GPUs differs between the arms", "configs", "One protocol.",
              "1, 2, 4 or 8, and with it the order of V5.", "Arms differ in more than their name.",
              elsewhere="one process here, and batches that do not depend on processes"),
    Deviation("V10", "medium", "one update too many", "TR 154, 189-191",
              "As many updates of the student as of the teacher.",
              "After a block of whole epochs one more is made.", "391 for 390 batches at s = 1, none more at 1.5.",
              _online(extra_step=True)),
    Deviation("V11", "medium", "the teacher's labels weigh half in online KD", "TR 107-112, 136, 176", "A teacher that "
              "learns as in the other arms.", "0.5 in online KD, 1.0 in spaced KD.",
              "Next to nothing with AdamW, which divides by the gradient's size; with SGD it would be half the rate. "
              "The preset sets it at s = 0 alone, as the program does.",
              _online(teacher_weight=0.5), in_preset=False),
    Deviation("V12", "medium", "an average on the wrong clock", "TR 195; net.py 77-86", "An average of the student.",
              "Moved once per update of the teacher, while the student is idle (off by default).",
              "It would mostly repeat a drifting student.",
              elsewhere='not built: no average of a spaced student; method = "ema" averages a network on its own '
                        "clock (notebook 13)"),
    Deviation("V13", "medium", "tested when the student is stale", "TR 263", "The accuracy after a student's epoch.",
              "Tested after each of the teacher's; in between the student has drifted (V1).",
              "A sawtooth, and a best epoch that is picked from it.",
              elsewhere="not built: runs are tested after the student's epochs; the last one is the headline"),
    Deviation("V14", "medium", "one line for two networks", "TR 196-200", "Loss and accuracy of each.",
              "The logged loss is the teacher's, the accuracy the idle student's.", "Logs that cannot be read.",
              elsewhere="terms by role in every epoch's row"),
    Deviation("V15", "medium", "spaced runs cannot be resumed", "DI 97-101; checkpoint.py 55, 108; run_net.py 43-45",
              "Checkpoints of all that a run depends on.", "No teacher, no counter, and a name that is not looked for.",
              "An interrupted run is lost.", elsewhere="checkpoints, which hold all of it"),
    Deviation("V17", "medium", "pictures are resized in two ways", "transforms.py 91, 61, 49-65", "One way.",
              "Bicubic in training, bilinear in the test; ImageNet's statistics for CIFAR.", "Small.",
              elsewhere='augment = "strong" and Vision, which do the same; the field normalise'),
    Deviation("V21", "medium", "a student's turn is made at its teacher's rate", "TR 154-193",
              "The rate at which its teacher met the batch.", "The rate of the epoch in which the turn begins; so the "
              "first turn has no warm-up.", "0.3% more learning rate over 300 epochs; much more over few.",
              _online(student_clock="teacher")),
)
