"""Where the released CNN programs differ from the method as described: A rows.

Lines are those of the authors' release (github.com/SunGL001/Spaced-KD,
commit deecb4d): TS is online_KD/train_space.py, ST is self_KD/train.py, SR is self_KD/resnet.py, OU is
online_KD/utils.py. We had the paper's abstract, the README and the programs, not the full paper: "expected" means what
those say, or the usual definition of the named technique. Where the paper itself states the program's form we count
none, but for A6, which decides what is compared. Told in notebooks/09_released_code_audit.ipynb. No torch here.
"""

from __future__ import annotations

from .deviation import Deviation


def _both(**fields) -> dict[str, dict]:
    return {"online_kd": fields, "self_kd": fields}


ROWS = (
    Deviation("A1", "high", "soft loss is fed probabilities", "TS 72-73, 115-116, 286",
              "Kullback-Leibler divergence from the teacher's softened probabilities to the student's.",
              "PyTorch's KLDivLoss, which expects log-probabilities, receives probabilities. Self KD uses the "
              "log-softmax and is right.",
              "What is minimised is -<q, p>: its optimum is the teacher's first choice alone. Its gradient has 0.007 "
              "to 0.015 of the divergence's length for unrelated logits of 100 classes and 0.07 to 0.3 for similar "
              "ones, of which it pushes 2 to 27% the wrong way.",
              {"online_kd": {"soft_loss": "probability_kl"}, "self_kd": {"soft_loss": "soft_cross_entropy"}}),
    Deviation("A2", "high", "feature loss is one norm of the batch", "TS 295-296, 74, 117; ST 241",
              "A distance between the features of student and teacher.",
              "The Euclidean norm of the whole difference [B, D], no mean; weight 0.03.",
              "Its weight against the labels grows with the root of the batch size: 0.15 of their gradient at the "
              "start of ResNet-18, 0.3 to 1.2 later in small networks. In online KD it outweighs the soft loss, which "
              "A1 has weakened, several hundred times or more.",
              _both(feature_loss="batch_frobenius"), origin="BYOT (self KD)"),
    Deviation("A3", "high", "the replay of self KD trains the deepest exit too", "ST 219-261",
              "The deepest exit runs ahead, then teaches the shallow exits.",
              "The replay updates everything, the deepest exit's cross-entropy included, on batches that were learnt "
              "already.",
              "61,367 updates at s = 4 against 31,280 of the baseline: the gain is mixed with almost doubled training.",
              {"self_kd": {"self_update": "everything"}}),
    Deviation("A4", "high", "self KD counts batches from one epoch below zero", "ST 179",
              "A replay every s epochs.",
              "The counter starts at minus one epoch, so the first replay comes after one epoch and, at s = 4, the "
              "last three epochs are never distilled.",
              "At the last epoch the shallow exits and the ensemble are stale for long intervals; the best epoch on "
              "the test set hides it.",
              {"self_kd": {"counter": "epoch_early"}}),
    Deviation("A5", "high", "best epoch on the test set", "TS 189-191, 211; ST 311-315",
              "Test accuracy.",
              "The highest of 80 test accuracies, one after each epoch.",
              "Optimistic, and unequally so: online KD has 80 different students to choose from, s = 4 has 20. There "
              "it works against spacing, the authors' own method.",
              elsewhere="the column best_on_test_accuracy of tables.runs"),
    Deviation("A6", "high", "the lead is a sawtooth", "TS 98-126",
              "A teacher trained s epochs ahead.",
              "The teacher runs for s epochs, then the student catches up on the same augmented pictures: the lead "
              "falls from s to one update, s / 2 on average.",
              "Spacing is mixed with targets on pictures that the teacher has just learnt. The paper's schedule, so "
              "both presets keep it.",
              elsewhere='rule = "constant" and replay = "fresh_batch", which are arms of 05_spaced_kd'),
    Deviation("A7", "high", "s = 0 is not the limit of small s", "TS 106-110",
              "Online KD is spaced KD without a space.",
              "At s = 0 the targets come from before the teacher's update on the batch, at s > 0 from after it.",
              "The baseline differs from spaced KD in one more thing than the interval: when its teacher is asked.",
              {"online_kd": {"zero_target": "pre_update"}}),
    Deviation("A8", "high", "offline KD is another protocol", "TS 39-46, 371-380",
              "Offline KD is the other end: a teacher trained before.",
              "It also has fresh batches and a teacher in eval mode, where spaced KD has the same pixels and batch "
              "statistics.",
              "Offline and spaced cannot be compared like for like. Both presets replay the same pixels; the field "
              "sets what the program does.",
              {"offline_kd": {"replay": "fresh_batch"}}, in_preset=False),
    Deviation("A9", "high", "constant learning rate", "TS 245-257, 312-316, 362-364; ST 172-174",
              "Settings name a schedule with three steps.",
              "The scheduler's step is commented out: 0.01 throughout.",
              "Baselines are weak and noisy from epoch to epoch, which feeds A5. With a schedule one must choose whose "
              "progress drives the student's rate (student_clock).",
              _both(lr_schedule="constant")),
    Deviation("A10", "high", "defaults are another experiment", "TS 224, 230; ST 29",
              "The README gives learning rate 0.01 and names the interval.",
              "Without flags the online program trains at 0.1, and both are spaced by one epoch.",
              "A run without flags is no baseline.",
              {"online_kd": {"lr": 0.1, "interval": 1.0}, "self_kd": {"interval": 1.0}}, in_preset=False),
    Deviation("A11", "medium", "the last, partial interval is lost", "TS 357-369; ST 167-251",
              "Every batch is distilled.",
              "What is left in the buffer at the end is dropped.",
              "At s = 1.5 the student misses 222 of 31,280 updates, at s = 45 almost half.",
              _both(tail="drop")),
    Deviation("A12", "medium", "one GPU or two makes a difference", "TS 301-303; ST 151-152",
              "Hardware does not matter.",
              "On two GPUs batch norm sees half a batch, and the idle exits of self KD keep decaying and coasting, "
              "because their gradients are zeros and not absent (also with torch before 2.0; seen on a stand-in for "
              "the copying between GPUs, not on two GPUs).",
              "Results depend on the number of GPUs and the version.",
              {"online_kd": {"batch_norm_parts": 2}, "self_kd": {"batch_norm_parts": 2, "idle_exits": "decay"}},
              in_preset=False),
    Deviation("A13", "medium", "the teacher teaches in train mode", "TS 38-41, 109-110",
              "A trained teacher is asked for its outputs.",
              "It answers with the statistics of the batch, and its running statistics move once more.",
              "The teacher's test accuracy depends on s although its weights do not.",
              {"online_kd": {"teacher_mode": "train"}}),
    Deviation("A14", "medium", "replays are held in memory", "TS 57-58; ST 183-184",
              "No word on memory.",
              "Augmented pictures wait as float32: 0.92 GB at s = 1.5 on CIFAR-100, 1.16 TB on ImageNet.",
              "Spaced KD on ImageNet needs more memory than machines have. The numbers are the same.",
              elsewhere="Batches, which makes a batch again from its number; make bench compares"),
    Deviation("A15", "medium", "the buffer leaks file handles", "ST 183-184",
              "No word on it.", "Each batch kept from a loader with workers holds two file descriptors.",
              "s = 4 needs 3,128 of them, more than most systems grant. The numbers are the same.",
              elsewhere="Batches, which has no workers"),
    Deviation("A16", "medium", "the gate cannot close", "SR 218-249",
              "An attention module.", "A ReLU stands before the sigmoid.", "The gate lies in [1/2, 1).",
              {"self_kd": {"gate": "rectified"}}, origin="BYOT"),
    Deviation("A17", "medium", "one exit has no feature loss", "ST 240, 263",
              "A comment says that the shallowest exit has none.", "Exit 3, the deepest student, has none.",
              "Its adapter is never trained.", {"self_kd": {"feature_exits": (1, 2)}}, origin="BYOT"),
    Deviation("A18", "medium", "no T squared", "TS 72-73; ST 39-42",
              "Soft losses are scaled by the square of the temperature (Hinton et al. 2015).", "They are not.",
              "At T = 3 soft gradients are a ninth of the usual.", _both(t_squared=False), origin="BYOT (self KD)"),
    Deviation("A19", "medium", "augmentation, statistics and initialisation differ between the programs",
              "OU 157-165; ST 45-59",
              "One protocol for both programs.",
              "Online: crop, flip and rotation, CIFAR-100's statistics. Self: AutoAugment with one-sided rotations and "
              "cutout, CIFAR-10's statistics, another initialisation.",
              "Their numbers cannot be compared with each other.",
              {"online_kd": {"augment": "crop_flip_rotate", "normalise": "cifar100", "init": "torch"},
               "self_kd": {"augment": "autoaugment_cutout", "normalise": "cifar10", "init": "kaiming"}},
              origin="BYOT (self KD)"),
    Deviation("A20", "medium", "spacing costs more", "TS 109-110; ST 186, 229",
              "A summary by others, which we could not verify, reads: no extra training cost.",
              "A second look at the teacher (online, 1.17 times) or a second pass (self, 1.84 to 1.97 times).",
              "Gains must be read beside their cost.", elsewhere="train_gmacs and updates, in every record and table"),
    Deviation("A21", "medium", "exits are stale between replays", "ST 287-315",
              "Accuracy of every exit after each epoch.",
              "Between replays the trunk moves and the shallow exits do not.",
              "The best of 80 epochs picks those right after a replay.",
              elsewhere="updates of both roles in every epoch's row"),
    Deviation("A22", "medium", "the headline is an ensemble", "ST 297, 311",
              "Accuracy of the network.", "Accuracy of the mean of four exits' logits.",
              "A larger network than the baseline's; not to be set beside an online student.",
              elsewhere="the column ensemble_test_accuracy of tables.epochs", origin="BYOT"),
)
