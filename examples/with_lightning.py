"""Spaced KD with Lightning: the walk is the train_dataloader, and a step is what training_step gets."""

import digits
import lightning
import torch.nn.functional as F

import spacedkd_lib as skd


class SpacedKD(lightning.LightningModule):
    """Both networks, updated by hand."""

    automatic_optimization = False

    def __init__(self):
        super().__init__()
        self.teacher, self.student, self.teach, self.learn, self.loader = digits.start()

    def configure_optimizers(self):
        """Return the teacher's optimizer and the student's."""
        return self.teach, self.learn

    def training_step(self, step, _):
        """Make the update that the walk asks for."""
        if step.kind == "epoch":
            return
        x, y = step.batch
        if step.kind == "teach":
            optimizer, loss = self.optimizers()[0], F.cross_entropy(self.teacher.train()(x).logits, y)
        else:
            target, z = digits.ask(self.teacher, x), self.student.train()(x).logits
            soft = skd.losses.kl(z, target, digits.T)
            optimizer = self.optimizers()[1]
            loss = (1 - digits.ALPHA) * F.cross_entropy(z, y) + digits.ALPHA * digits.T**2 * soft
        optimizer.zero_grad()
        self.manual_backward(loss)
        optimizer.step()


def train():
    """Train the student; return it."""
    module = SpacedKD()
    trainer = lightning.Trainer(max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False,
                                enable_progress_bar=False, enable_model_summary=False)
    trainer.fit(module, digits.spaced(module.loader))
    return module.student


if __name__ == "__main__":
    print("The package's own weights, bit for bit:", digits.as_ours(train()))
