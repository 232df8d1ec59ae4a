"""Spaced KD with Lightning: the walk is the train_dataloader, and a step is what training_step gets."""

import digits
import lightning

import spacedkd_lib as skd


class SpacedKD(lightning.LightningModule):
    """Both networks, updated by hand."""

    automatic_optimization = False

    def __init__(self, teacher, student, *optimizers):
        super().__init__()
        self.teacher, self.student, self.both = teacher, student, optimizers

    def configure_optimizers(self):
        """Return the teacher's optimizer and the student's."""
        return self.both

    def training_step(self, step, _):
        """Make the update that the walk asks for."""
        if step.kind != "epoch":
            optimizer = self.optimizers()[step.kind == "learn"]
            optimizer.zero_grad()
            self.manual_backward(digits.loss(step, self.teacher, self.student))
            optimizer.step()


def train(*parts):
    """Walk once, since the walk counts the epochs; return the student."""
    trainer = lightning.Trainer(max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False,
                                enable_progress_bar=False, enable_model_summary=False)
    trainer.fit(SpacedKD(*parts[:-1]), skd.Spaced(parts[-1], epochs=3, interval=1.5))
    return parts[1]


if __name__ == "__main__":
    print("The package's own weights, bit for bit:", digits.as_ours(train(*digits.start())))
