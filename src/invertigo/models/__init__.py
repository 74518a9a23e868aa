"""The field's reference models, written small, and the user's own."""

from invertigo.models.building import build, options_of, registry
from invertigo.models.convnet import ConvNet
from invertigo.models.lenet import LeNet
from invertigo.models.mlp import MLP
from invertigo.models.resnet import ResNet
from invertigo.models.user import load_factory, resolve
from invertigo.models.vgg import VGG
from invertigo.models.vit import ViT
from invertigo.models.weights import load_weights

__all__ = [
    "MLP",
    "VGG",
    "ConvNet",
    "LeNet",
    "ResNet",
    "ViT",
    "build",
    "load_factory",
    "load_weights",
    "options_of",
    "registry",
    "resolve",
]
