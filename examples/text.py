"""Spaced KD for text, in batches that are dicts: tell the code of this package from its prose."""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader

import spacedkd_lib as skd

ROOT = Path(__file__).resolve().parents[1]


def train(nets, optimizers, loader, epochs, interval):
    """Make each update that the walk asks for; batches are dicts."""
    for step in skd.Spaced(loader, epochs, interval):
        if step.kind == "epoch":
            continue
        z = nets[step.kind](step.batch["ids"])
        loss = F.cross_entropy(z, step.batch["labels"])
        if step.kind == "learn":
            with torch.no_grad():
                target = nets["teach"](step.batch["ids"])
            loss = 0.7 * loss + 0.3 * 9 * skd.losses.kl(z, target, 3.0)
        optimizers[step.kind].zero_grad()
        loss.backward()
        optimizers[step.kind].step()


def lines(pattern, label):
    """Return the longer lines of some files as (line, label)."""
    text = "\n".join(path.read_text() for path in sorted(ROOT.glob(pattern)))
    return [(line.strip(), label) for line in text.splitlines() if len(line.strip()) > 30]


def collate(pairs):
    """Pad characters to 64, unknown ones as 0."""
    ids = torch.tensor([[ord(c) % 128 for c in line[:64].ljust(64)] for line, _ in pairs])
    return {"ids": ids, "labels": torch.tensor([label for _, label in pairs])}


class Classifier(torch.nn.Module):
    """Characters -> convolution -> mean -> two classes."""

    def __init__(self, width):
        super().__init__()
        self.embed = torch.nn.Embedding(128, width)
        self.convolve = torch.nn.Conv1d(width, width, 5, padding=2)
        self.head = torch.nn.Linear(width, 2)

    def forward(self, ids):
        """Return logits [B, 2] of ids [B, 64]."""
        return self.head(F.relu(self.convolve(self.embed(ids).mT)).mean(dim=2))


def score(interval=1.5, epochs=4):
    """Train on half of the lines; on the others, return the student's accuracy and the larger class's share (%)."""
    torch.manual_seed(0)
    data = lines("spacedkd_lib/schedule.py", 0) + lines("spacedkd_lib/data/*.py", 0)[:300] + lines("*/*.md", 1)
    train_part, test_part = data[::2], collate(data[1::2])
    nets = {"teach": Classifier(64), "learn": Classifier(16)}
    optimizers = {kind: torch.optim.Adam(net.parameters(), lr=1e-2) for kind, net in nets.items()}
    loader = DataLoader(train_part, batch_size=32, shuffle=True, collate_fn=collate)
    train(nets, optimizers, loader, epochs, interval)
    labels = test_part["labels"]
    accuracy = 100 * (nets["learn"](test_part["ids"]).argmax(1) == labels).float().mean().item()
    return accuracy, 100 * labels.bincount().max().item() / len(labels)


if __name__ == "__main__":
    print("Accuracy of the student {:.1f}%, share of the larger class {:.1f}%".format(*score()))
