"""Where the released programs of IE-KD and of Education Distillation differ from their methods: I and E rows.

IE-KD: github.com/aliyun/Revisiting-Knowledge-Distillation-an-Inheritance-and-Exploration-Framework, commit 3274ab0.
ED: github.com/Revolutioner1/ED, commit f80157a. Neither can be started as it is: the first imports modules that it does
not have, the second has no entry point and selects no class for any teacher. So nothing here was run as released; the
rows are what their code says, numbered as in our reading of it. Left out is what keeps them from starting, what changes
no number, and what cannot be a switch here (the same order in every epoch on several GPUs, defaults, strides,
printed numbers). "expected" is what abstracts and figures say, or the usual definition; we had no full papers.
Told in notebooks/10_ie_kd.ipynb and notebooks/11_education_distillation.ipynb. No torch here.
"""

from __future__ import annotations

from .deviation import Deviation


def _ed(**fields) -> dict[str, dict]:
    return {"education": fields}


ROWS = (
    Deviation("I3", "high", "the small network teaches the large one", "IE_KD.py 21-56, 193-206; ie_kd.yaml 10, 18",
              "A large teacher's factor, a small student that is split.",
              "The words are exchanged: the frozen network is a ResNet-20, the one that is trained and split a "
              "ResNet-56.", "To reproduce the file is to distil backwards.",
              elsewhere="the fields model and teacher_model, exchanged by recipes.preset(..., \"released\")"),
    Deviation("I4", "high", "no loss is named", "ie_kd.yaml 30; IE_KD.py 40-43",
              "Similarity for inheritance, dissimilarity for exploration.",
              "Both names are empty in the only configuration; the code offers a distance with a sign and a cosine.",
              "Kind, exponent and sign are undefined. Ours are the distance and its negative.",
              elsewhere="losses.factor_distance"),
    Deviation("I5", "high", "weights of 1 on a mean over elements", "ie_kd.yaml 31-34",
              "Terms that matter beside the labels.",
              "Weight 1, where the same program's factor transfer has 500: the gradient of inheritance is 0.0017 of "
              "the labels' at the start.", "As configured, IE-KD is almost plain training.",
              {"ie_kd": {"inherit_weight": 1.0, "explore_weight": 1.0}}),
    Deviation("I7", "high", "mutual learning without mutual learning", "main.py 237-240; 4 of 5 DML configurations",
              "Each network learns from the other's predictions.",
              "The weight of the divergence is 0 unless given, and four of five configurations do not give it.",
              "Two strangers are trained.", {"mutual": {"mutual_weight": 0.0}}, in_preset=False),
    Deviation("I8", "high", "resnet56-20 is not", "DML configurations", "The networks that the name says.",
              "The student is a ResNet-32.", "A result under the wrong name.", elsewhere="names come from the models"),
    Deviation("I9", "medium", "each network sees a batch twice", "DML.py 112-129", "One look a batch.",
              "Both are run in train mode for either's update.", "Running statistics move at twice the pace.",
              {"mutual": {"teacher_mode": "train"}}),
    Deviation("I11", "high", "the best epoch of the better network", "DML.py 89-97", "Each network's own accuracy.",
              "The epoch is chosen by the maximum over both.", "Optimistic, and of one network only.",
              elsewhere="both networks in every record, last epoch"),
    Deviation("I12", "high", "best epoch on the test set", "base.py 200-294", "Test accuracy.",
              "The best of all epochs, of the teacher's weights too.", "Optimistic; the teacher has seen the test set.",
              elsewhere="the column best_on_test_accuracy of tables.runs"),
    Deviation("I13", "high", "no seed", "base.py 30-36; main.py 44", "Repeatable runs.",
              "An option --seed that nothing reads.", "Single runs that nobody can repeat.",
              elsewhere="the field seed"),
    Deviation("I15", "high", "the split is drawn at the first batch", "IE_KD.py 317-340", "One split a run.",
              "It is saved and not restored, and differs between processes.", "A resumed run has another student.",
              elsewhere="MapLoss, whose halves are the first channels and the last"),
    Deviation("I16", "high", "resuming trains the paraphraser anew", "IE_KD.py 244-250", "The same factor throughout.",
              "Stage 1 always runs.", "The target changes in mid-run.", elsewhere="checkpoints, which hold it"),
    Deviation("I20", "medium", "a root without a gradient", "factor_transfer.py 7-13", "A distance.",
              "For p above 1 the p-th root of a mean, whose gradient is infinite at an exact match.",
              "NaN where student and teacher agree.", elsewhere="losses.factor_distance, whose p is 1"),
    Deviation("I21", "medium", "the encoder can do the exploring", "factor_transfer.py 21-25",
              "Features that the teacher does not have.",
              "The distance is measured behind an encoder that is trained to enlarge it.",
              "With the student's features frozen, 30 steps of the encoder turn a cosine of 0.18 into -0.23.",
              elsewhere="probe_..._cka in every record, which looks at the maps before any encoder"),
    Deviation("I22", "high", "alignment with the wrong sign", "loss/cka.py", "A loss.",
              "Its CKA (centred kernel alignment) returns the similarity, and two of its three forms crash.",
              "As inheritance it would repel.",
              elsewhere="losses.linear_cka, which measures and trains nothing"),
    Deviation("E7", "high", "classes fall between the groups", "cifar100.py 11-28; train_*.py 98-105",
              "33, 33 and 34 classes.",
              "Counts are used as bounds, so no teacher has any class; with the evident repair, strict comparisons "
              "lose classes 33 and 66.", "With that repair two classes are never learnt.", _ed(school_bounds="strict")),
    Deviation("E9", "high", "validation on training pictures", "cifar100.py 47-49; student_continer.py 85",
              "Accuracy on pictures not trained on.",
              "The training split, in train mode, in batches of 4, and the statistics move.",
              "No number of that program can be a test accuracy.",
              elsewhere="train accuracy, beside the test's in every record"),
    Deviation("E11", "high", "teachers teach in train mode", "student_continer.py 47-48", "Trained teachers are asked.",
              "They answer by the statistics of the batch, and theirs drift.",
              "A teacher's own accuracy depends on the student's questions.", _ed(teacher_mode="train")),
    Deviation("E12", "medium", "batches of 4", "all loaders", "Batches that batch norm can work with.",
              "4 pictures, learning rate 0.05.", "Noise; 12,500 updates an epoch.", _ed(batch_size=4), in_preset=False),
    Deviation("E18", "high", "one file for three teachers", "train_teacher.py 72, 124", "A teacher a group.",
              "All are saved under one name.", "The last one teaches all groups.", elsewhere="records by run"),
    Deviation("E20", "medium", "the student grows as its learning rate falls", "train_student.py 132, 168-209",
              "Grades in which the new stage can learn.",
              "Grades end after epochs 149 and 179 of 240, where the rate falls to a tenth for all.",
              "Three quarters of the parameters first appear at a tenth of the rate or less. (The preset sets the "
              "lengths of the grades, too.)",
              _ed(lr_on_growth="continue", lr_schedule="late_steps")),
    Deviation("E22", "medium", "momentum is lost at a new grade", "student_continer.py 107-117",
              "The surviving layers go on.", "A new optimizer.", "A jolt at each growth.",
              _ed(optimizer_on_growth="reset")),
    Deviation("E24", "medium", "the groups come in turn", "train_student.py 186-220", "Batches of all known classes.",
              "One whole group after the other in each epoch.", "The last group is fresh in memory when it ends.",
              _ed(grade_batches="sequential")),
    Deviation("E26", "high", "the logarithm of a softmax", "student_continer.py 54-60", "A loss that is finite.",
              "log(softmax(z)) is minus infinity where a probability underflows.", "NaN.", elsewhere="losses.kl"),
    Deviation("E30", "medium", "heads of another kind", "resnet20.py 64-118", "The plain network at the end.",
              "No ReLU in lower heads, and one more batch norm before the last.",
              "The final student is not a ResNet-20 (128 parameters more).", _ed(final_head="batch_norm")),
    Deviation("E32", "high", "the best epoch of the last grade on that validation", "train_student.py 244-259",
              "The accuracy at the end.", "The best epoch by accuracy on training pictures.", "Optimistic.",
              elsewhere="last epoch, test pictures"),
    Deviation("E36", "high", "no seed", "everywhere", "Repeatable runs.", "None.", "Single runs.",
              elsewhere="the field seed"),
)
