"""An ordinary PyTorch script that trains a classifier of handwritten digits. It knows nothing of Invertigo."""

import numpy
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def build_data():
    digits = load_digits()
    images = torch.from_numpy(digits.images.astype(numpy.float32)).unsqueeze(1) / 16
    return TensorDataset(images, torch.from_numpy(digits.target))


def build_model():
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.GELU(),
        nn.Conv2d(16, 16, 3, stride=2, padding=1),
        nn.GELU(),
        nn.Flatten(),
        nn.Linear(256, 64),
        nn.GELU(),
        nn.Linear(64, 10),
    )


def train_epoch(model, loader, optimizer, loss_fn):
    model.train()
    total = 0.0
    for images, labels in loader:
        optimizer.zero_grad()
        loss = loss_fn(model(images), labels)
        loss.backward()
        optimizer.step()
        total += loss.item()
    return total / len(loader)


def main():
    torch.manual_seed(0)
    model = build_model()
    loader = DataLoader(build_data(), batch_size=32, shuffle=True)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for epoch in range(3):
        print(f"epoch {epoch}: loss {train_epoch(model, loader, optimizer, nn.CrossEntropyLoss()):.3f}")


if __name__ == "__main__":
    main()
